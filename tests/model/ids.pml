/* One command id in two lanes: the sender delivered it twice, under two keys (CONTRACT, Idempotency).
 *
 * Each lane runs one batch in one Postgres transaction, READ COMMITTED, at the same time as the other. Rows stay locked
 * to the end of the transaction; an insert that meets the uncommitted row of another waits for its end. Steps carry the
 * names of the functions of worker/pipeline.py and the modules around it. The first attempt looks up only ids that need
 * not end bound; every later one looks all of them up.
 */

/* ---- what is delivered: two commands per lane, as (id, access token) */
#ifndef CASE
#define CASE 1
#endif
#if CASE == 1                /* the same request, twice in different order, and another one beside it */
#define DELIVERED deliver(0, 0, 0); deliver(1, 1, 1); deliver(2, 1, 1); deliver(3, 0, 0)
#elif CASE == 2              /* the same ids for other access tokens */
#define DELIVERED deliver(0, 0, 0); deliver(1, 1, 1); deliver(2, 1, 2); deliver(3, 0, 3)
#elif CASE == 3              /* twice in one batch, for two tokens, and once more in the other */
#define DELIVERED deliver(0, 0, 0); deliver(1, 0, 1); deliver(2, 1, 2); deliver(3, 0, 1)
#elif CASE == 4              /* one id as before, one for another token, each beside an id of its own lane */
#define DELIVERED deliver(0, 0, 0); deliver(1, 1, 1); deliver(2, 0, 0); deliver(3, 1, 2)
#else                        /* two ids for one token in one batch; the second also for two others, in the other */
#define DELIVERED deliver(0, 0, 0); deliver(1, 1, 0); deliver(2, 1, 1); deliver(3, 1, 2)
#endif
#ifndef LATE_RIGHT
#define LATE_RIGHT 0         /* the callers are granted their right while the lanes work */
#endif

/* ---- rules that can be left out */
#ifndef RECALL_FIRST
#define RECALL_FIRST 0
#endif
#ifndef NO_DOUBT
#define NO_DOUBT 0
#endif
#ifndef NO_SHARED
#define NO_SHARED 0
#endif
#ifndef ALWAYS_TRUSTING
#define ALWAYS_TRUSTING 0
#endif
#ifndef NO_OVERTAKEN
#define NO_OVERTAKEN 0
#endif
#ifndef KEEP_WRITES
#define KEEP_WRITES 0
#endif
#ifndef BIND_REFUSALS
#define BIND_REFUSALS 0
#endif
#ifndef UNSORTED_TOKENS
#define UNSORTED_TOKENS 0
#endif
#ifndef UNSORTED_IDS
#define UNSORTED_IDS 0
#endif

#define OK 1
#define REPLAYED 2
#define INVALID_STATE 3
#define DUPLICATE 4
#define DENIED 5
#define OVERTAKEN_TIMES 5
#define FREE 2

bit property_1, property_2, property_3;   /* always 0: they name the property in the text of an assertion */

byte id[4], token[4];
bit right = !LATE_RIGHT;

bit effective[4];            /* access tokens, committed */
byte locked[4] = FREE;
byte transitions[4];         /* by access token */
byte bound[2];               /* the record of commands: which token an id was applied to, plus 1 */
byte refusal[2];             /* mutant BIND_REFUSALS: the refusal that an id is bound to */
byte inserting[2] = FREE;
byte answer[4];

#define A (2 * me)
#define B (2 * me + 1)
#define LESS(what) (what[A] <= what[B])

inline deliver(c, with_id, for_token) { id[c] = with_id; token[c] = for_token }

inline take_lock(c) { atomic { locked[token[c]] == FREE || locked[token[c]] == me -> locked[token[c]] = me; printf("SAY %d: locks token %d\n", me, token[c]) } }

#define TRUSTING (times == 0 || ALWAYS_TRUSTING)
#define DOUBTFUL(c) (!NO_DOUBT && (effective[token[c]] || (token[A] == token[B] && !NO_SHARED)))
#define LOOKED_UP(i) (!TRUSTING || RECALL_FIRST || (id[A] == i && DOUBTFUL(A)) || (id[B] == i && DOUBTFUL(B)))

inline recall_id(i) { if :: LOOKED_UP(i) -> known[i] = bound[i]; refused[i] = refusal[i]; printf("SAY %d: recalls id %d, bound %d\n", me, i, known[i]) :: else fi }

inline recall() { atomic { recall_id(0); recall_id(1) } }

#define EFFECTIVE(c) (effective[token[c]] || (c == B && decided[0] == OK && token[A] == token[B]))

inline decide_one(c) {
  if
  :: !permitted -> decided[c - A] = DENIED
  :: permitted && refused[id[c]] -> decided[c - A] = refused[id[c]]
  :: permitted && !refused[id[c]] && known[id[c]] == token[c] + 1 -> decided[c - A] = REPLAYED
  :: permitted && !refused[id[c]] && known[id[c]] && known[id[c]] != token[c] + 1 -> decided[c - A] = DUPLICATE
  :: permitted && !refused[id[c]] && !known[id[c]] ->
     if
     :: EFFECTIVE(c) -> decided[c - A] = INVALID_STATE; assert(property_3 || !bound[id[c]])
     :: else -> decided[c - A] = OK; known[id[c]] = token[c] + 1
     fi
  fi
}

#define BINDS(c) (decided[c - A] == OK || (BIND_REFUSALS && decided[c - A] == DENIED))

#define ABORTED (conflict && !NO_OVERTAKEN && !KEEP_WRITES)

inline insert(c) {           /* refused where the id is bound, after waiting for whoever is binding it */
  if
  :: atomic { !BINDS(c) || ABORTED -> skip }
  :: atomic { BINDS(c) && !ABORTED && (inserting[id[c]] == FREE || inserting[id[c]] == me) ->
       if
       :: bound[id[c]] || refusal[id[c]] -> conflict = 1
       :: else -> inserting[id[c]] = me; printf("SAY %d: inserts id %d\n", me, id[c])
       fi }
  fi
}

inline write(c) {
  if
  :: decided[c - A] == OK ->
     effective[token[c]] = 1; transitions[token[c]]++;
     if :: inserting[id[c]] == me -> bound[id[c]] = token[c] + 1 :: else fi
  :: decided[c - A] == DENIED && BIND_REFUSALS -> if :: inserting[id[c]] == me -> refusal[id[c]] = DENIED :: else fi
  :: else
  fi;
  answer[c] = decided[c - A]
}

inline release() {
  i = 0;
  do
  :: i < 4 -> if :: locked[i] == me -> locked[i] = FREE :: else fi; i++
  :: else -> break
  od;
  i = 0;
  if :: inserting[0] == me -> inserting[0] = FREE :: else fi;
  if :: inserting[1] == me -> inserting[1] = FREE :: else fi
}

proctype Lane(byte me) {
  byte decided[2], known[2], refused[2], times, i;
  bit permitted, conflict;
_decide:
  atomic { permitted = right; printf("SAY %d: begins, permitted %d\n", me, permitted) };                        /* authorise */
  if :: RECALL_FIRST -> recall() :: else fi;
  if                                                   /* load: locks in the order of the tokens' ids */
  :: UNSORTED_TOKENS || LESS(token) -> take_lock(A); take_lock(B)
  :: !UNSORTED_TOKENS && !LESS(token) -> take_lock(B); take_lock(A)
  fi;
  atomic {
    if :: !RECALL_FIRST -> recall() :: else fi;        /* recall_by_id, which sees what the lock was waited for */
    decide_one(A); decide_one(B); printf("SAY %d: has locked its tokens, decides %d %d\n", me, decided[0], decided[1]) };
  if                                                   /* record: inserts in the order of the command ids */
  :: UNSORTED_IDS || LESS(id) -> insert(A); insert(B)
  :: !UNSORTED_IDS && !LESS(id) -> insert(B); insert(A)
  fi;
  if
  :: d_step { ABORTED ->                               /* BatchConflict: rolled back, and run again */
       printf("SAY %d: is overtaken\n", me); release(); conflict = 0; known[0] = 0; known[1] = 0; refused[0] = 0; refused[1] = 0; decided[0] = 0; decided[1] = 0; times++;
       assert(property_1 || times < OVERTAKEN_TIMES) };
     goto _decide
  :: d_step { !ABORTED ->
       write(A); write(B);
       if                                              /* mutant: the writes stay, the answers are the recorded ones */
       :: conflict && KEEP_WRITES ->
          if :: decided[0] == OK && bound[id[A]] != token[A] + 1 -> answer[A] = DUPLICATE :: else fi;
          if :: decided[1] == OK && bound[id[B]] != token[B] + 1 -> answer[B] = DUPLICATE :: else fi
       :: else
       fi;
       printf("SAY %d: commits, answers %d %d\n", me, answer[A], answer[B]); release() }
  fi
}

#define APPLIED(c) (answer[c] == OK || answer[c] == REPLAYED)
#define RIGHTLY(c) (answer[c] && \
  (answer[c] != INVALID_STATE || bound[1 - id[c]] == token[c] + 1) && \
  (answer[c] != DENIED || LATE_RIGHT) && \
  (!APPLIED(c) || bound[id[c]] == token[c] + 1) && \
  (answer[c] != DUPLICATE || (bound[id[c]] && bound[id[c]] != token[c] + 1)))
#define ANSWERED (answer[0] && answer[1] && answer[2] && answer[3])
#define ONCE(c, d) (id[c] != id[d] || !(answer[c] == OK && answer[d] == OK))

init {
  atomic { DELIVERED; run Lane(0); run Lane(1) };
  if :: atomic { !right -> right = 1 } :: else fi;
  if
  :: atomic { ANSWERED ->
       assert(property_2 || (ONCE(0, 1) && ONCE(0, 2) && ONCE(0, 3) && ONCE(1, 2) && ONCE(1, 3) && ONCE(2, 3)));
       assert(property_3 || (RIGHTLY(0) && RIGHTLY(1) && RIGHTLY(2) && RIGHTLY(3)));
       assert(property_3 || (transitions[0] == (bound[0] == 1 || bound[1] == 1)));
       assert(property_3 || (transitions[1] == (bound[0] == 2 || bound[1] == 2)));
       assert(property_3 || (transitions[2] == (bound[0] == 3 || bound[1] == 3)));
       assert(property_3 || (transitions[3] == (bound[0] == 4 || bound[1] == 4))) }
  :: atomic { timeout -> assert(property_1 || ANSWERED) }
  fi
}
