/* One partition of commands, two workers that may each believe to own it, Postgres, and Kafka (worker/DESIGN.md, 2 and 3).
 *
 * A step is atomic, and everything between steps interleaves: a worker that stalls is one that is not scheduled for a
 * while. Steps carry the names of the functions that implement them (worker/lanes/ and worker/pipeline.py; tests/unit/test_names.py).
 * Postgres transactions are atomic, because their first statement locks the lane's row. Kafka's transaction coordinator
 * speaks protocol v1. An epoch matters only by whether it is still the newest, so it is one bit per holder.
 *
 * tests/model/README.md tells the properties P1 to P6; tests/model/check.py the bounds and the mutants.
 */

/* ---- bounds: how many of each there may be */
#ifndef N
#define N 3           /* commands */
#endif
#ifndef BATCH
#define BATCH 2       /* commands in a batch, 1 or 2 */
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef REBALANCES
#define REBALANCES 0
#endif
#ifndef LOST
#define LOST 0        /* answers or requests that are lost, COMMIT's in Postgres too */
#endif
#ifndef LATE
#define LATE 0        /* requests that arrive later than anybody waits for */
#endif
#ifndef REFUSALS
#define REFUSALS 0    /* Produce requests that the broker refuses once */
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 0    /* transactions that the coordinator times out */
#endif
#ifndef ROLLBACKS
#define ROLLBACKS 0   /* Postgres transactions that fail for no fault of their own */
#endif
#ifndef AWAY
#define AWAY 0        /* starts and reads that end in DependencyUnavailable, upon which the lane restarts without a heartbeat */
#endif
#ifndef MASKED
#define MASKED 0      /* fencings that reach the lane as another error; -1: any number of those found by a Produce */
#endif
#ifndef LARGE
#define LARGE N       /* the command whose whole answer the broker will never take; N: none */
#endif
#ifndef BAD
#define BAD N         /* the command that Postgres will never take; N: none */
#endif
#ifndef DELIVERY
#define DELIVERY 0    /* 0 exactly_once, 1 at_least_once, 2 the first worker that, the second this (a change-over) */
#endif
#ifndef DEAF
#define DEAF 0        /* the group's answers never reach a worker that has lost the partition */
#endif
#ifndef VERIFY
#define VERIFY 1      /* the broker verifies a Produce with the coordinator; 0: an old broker, for SEND_ABORT only */
#endif

#ifndef STOPS
#define STOPS 0       /* workers that are stopped in good order: they finish their batch, and leave the group */
#endif
#ifndef RETENTIONS
#define RETENTIONS 0  /* removals of commands from the log's start, answered or not */
#endif
#ifndef EXPIRIES
#define EXPIRIES 0    /* the group's offset is forgotten, while nobody works */
#endif
#ifndef RESTORES
#define RESTORES 0    /* Postgres is put back to an earlier point, or to before the lane's first start */
#endif
#ifndef CUTS
#define CUTS 0        /* the log is cut below what was decided, while nobody works, and grows again */
#endif
#ifndef MARKER
#define MARKER N      /* the offset that holds no command, but the marker of a sender's transaction; N: none */
#endif
#ifndef STATEMENTS
#define STATEMENTS 0  /* the statements of a batch's Postgres transaction are steps of their own: its lock shows */
#endif

/* What only the configurations with one of these need is not there in the others, so that these stay small. */
#define PASSES (MARKER < N || EXPIRIES > 0)             /* batches of no commands */
#define ORDERS (RETENTIONS > 0 || RESTORES > 0 || CUTS > 0)
#define BLOCKS (RESTORES > 0 || CUTS > 0)
#define QUIET (EXPIRIES > 0 || CUTS > 0)                /* somebody asks whether nobody works */
#define EXTRA (PASSES || ORDERS || STATEMENTS || STOPS > 0)

/* ---- rules that can be left out, one at a time */
#ifndef NO_RECORD
#define NO_RECORD 0
#endif
#ifndef NO_RECALL
#define NO_RECALL 0
#endif
#ifndef NO_OWNER_CHECK
#define NO_OWNER_CHECK 0
#endif
#ifndef NO_NEXT_CHECK
#define NO_NEXT_CHECK 0
#endif
#ifndef NO_GREATEST
#define NO_GREATEST 0
#endif
#ifndef OFFSET_BEFORE
#define OFFSET_BEFORE 0
#endif
#ifndef OFFSET_AFTER
#define OFFSET_AFTER 0
#endif
#ifndef NO_GATHER
#define NO_GATHER 0
#endif
#ifndef READ_BEFORE_OPEN
#define READ_BEFORE_OPEN 0
#endif
#ifndef OPEN_BEFORE_OWN
#define OPEN_BEFORE_OWN 0
#endif
#ifndef NO_QUESTION
#define NO_QUESTION 0
#endif
#ifndef NO_SECOND_QUESTION
#define NO_SECOND_QUESTION 0
#endif
#ifndef NO_REPLACEMENT
#define NO_REPLACEMENT 0
#endif
#ifndef NO_READ_AFTER_OPEN
#define NO_READ_AFTER_OPEN 0
#endif
#ifndef ID_PER_WORKER
#define ID_PER_WORKER 0
#endif
#ifndef SEND_ABORT
#define SEND_ABORT 0
#endif
#ifndef NO_HEARTBEAT
#define NO_HEARTBEAT 0
#endif
#ifndef NO_CANCEL
#define NO_CANCEL 0
#endif
#ifndef NO_RESTART
#define NO_RESTART 0
#endif
#ifndef NO_HALVING
#define NO_HALVING 0
#endif
#ifndef WHOLE_BOUNDARY
#define WHOLE_BOUNDARY 0
#endif
#ifndef OTHER_STATUS
#define OTHER_STATUS 0
#endif
#ifndef BLAME_BATCH
#define BLAME_BATCH 0
#endif
#ifndef RIGHT_FIRST
#define RIGHT_FIRST 0
#endif
#ifndef NO_SETTLING
#define NO_SETTLING 0
#endif
#ifndef LOSE_SILENTLY
#define LOSE_SILENTLY 0
#endif
#ifndef LOSE_ANSWERED
#define LOSE_ANSWERED 0
#endif
#ifndef LOSE_APART
#define LOSE_APART 0
#endif
#ifndef LOSE_UNOWNED
#define LOSE_UNOWNED 0
#endif
#ifndef NO_ORDER
#define NO_ORDER 0
#endif
#ifndef ORDER_UNASKED
#define ORDER_UNASKED 0
#endif
#ifndef ORDER_UNSETTLED
#define ORDER_UNSETTLED 0
#endif
#ifndef FORGET_EARLY
#define FORGET_EARLY 0
#endif
#ifndef FORGET_UNSETTLED
#define FORGET_UNSETTLED 0
#endif
#ifndef NO_SETTLE
#define NO_SETTLE 0
#endif
#ifndef SETTLE_EARLY
#define SETTLE_EARLY 0
#endif
#ifndef FROM_LOG_START
#define FROM_LOG_START 0
#endif
#ifndef FIRST_START_ANYWAY
#define FIRST_START_ANYWAY 0
#endif
#ifndef GO_ON_FORWARD
#define GO_ON_FORWARD 0
#endif
#ifndef DECIDE_AGAIN
#define DECIDE_AGAIN 0
#endif
#ifndef NO_BLOCK
#define NO_BLOCK 0
#endif
#ifndef NO_SAME_RECORD
#define NO_SAME_RECORD 0
#endif
#ifndef NO_LOCK
#define NO_LOCK 0
#endif
#ifndef NO_REST
#define NO_REST 0
#endif
#ifndef REST_UNDECIDED
#define REST_UNDECIDED 0
#endif

#ifndef TOGETHER
#define TOGETHER 0    /* Postgres refuses any two new commands in one batch, and takes each alone */
#endif

#define NOBODY 2
#define OK 1          /* statuses */
#define REFUSED 2
#define INTERNAL 3
#define EMPTY 0       /* states of a transaction: nothing since InitProducerId */
#define ONGOING 1
#define TO_COMMIT 2   /* PrepareCommit: the markers are not written yet */
#define TO_ABORT 3
#define COMMITTED 4
#define ABORTED 5
#define END_COMMIT 1  /* late requests */
#define END_ABORT 2
#define TXN_OFFSET 3
#define PRODUCE 4
#define ADD 5
#define COMMIT_OFFSET 6
#define PRODUCE_AT_LEAST 7

#define AT_LEAST(w) (DELIVERY == 1 || (DELIVERY == 2 && (w) == 1))
#define EXACT (DELIVERY == 0)
#define IDS (1 + ID_PER_WORKER)
#define ID(w) ((w) * ID_PER_WORKER)
#define TOKEN(k) ((k) / 2)   /* two commands for one access token: the first is applied, the second refused */
#define EXPECTED(k) ((k) == BAD -> INTERNAL : (((k) % 2 == 0 || (k) - 1 == BAD || SKIPPED((k) - (k) % 2)) -> OK : REFUSED))

/* always 0: they name the property in the text of an assertion */
bit property_1, property_2, property_3, property_4, property_6;

/* ---- faults that are left */
byte crashes = CRASHES, rebalances = REBALANCES, lost = LOST, late = LATE, refusals = REFUSALS;
byte timeouts = TIMEOUTS, rollbacks = ROLLBACKS, away = AWAY;
#if EXTRA
byte stops = STOPS, retentions = RETENTIONS, expiries = EXPIRIES, restores = RESTORES, cuts = CUTS;
#define EXTRA_FAULTS (stops | retentions | expiries | restores | cuts)
#else
#define EXTRA_FAULTS 0
#endif
#if MASKED > 0
byte masked = MASKED;
#endif

/* ---- the group: who it says owns the partition; what each process believes: 0 no, 1 yes, 2 yes, but the lane of the
        assignment before has yet to be let go */
byte member = 0;
byte assigned[2];

/* ---- Postgres */
byte owner = NOBODY, first_offset, next_offset;
byte rec[N];                 /* the record of commands */
bit effective[(N + 1) / 2];  /* access tokens */
byte applied[N];             /* transitions by command */
#if STATEMENTS
byte locked = NOBODY;        /* whose batch has locked the lane's row */
byte chain;                  /* the head of the chain: the number of transitions */
#define UNLOCKED (locked == NOBODY)
#else
#define UNLOCKED true
#endif
#if ORDERS
byte ordered;                /* the offset that the group is to commit, plus 1 */
#define NOT_ORDERED (ordered == 0)
#else
#define NOT_ORDERED true
#endif
#if RESTORES
bit unopened = 1;            /* the row has no offsets yet */
#else
#define unopened 0
#endif
#if BLOCKS
bit blocked;
#endif
#if CUTS
byte last;                   /* the last record that was decided, plus 1 */
bit other;                   /* and where it stood, there is another one now, or none */
bit noticed;                 /* some lane has found that */
#define NOTICED noticed = 1
#define ANOTHER_RECORD (last && LOG_START < last && last <= LOG_END && other)
#else
#define NOTICED skip
#define ANOTHER_RECORD false
#endif

/* ---- Kafka */
byte txn[IDS];
byte pending[IDS * N];       /* statuses in the open transaction */
bit event[IDS * N];          /* transition events in the open transaction */
bit twice[IDS];              /* something stands twice in the open transaction */
byte moving[IDS];            /* the offset in the open transaction, plus 1 */
byte told[N], shown[N];      /* visible results and transition events */
byte offset;                 /* the group's committed offset */
#if EXPIRIES
bit absent;                  /* it has none; then offset is 0 */
#else
#define absent 0
#endif
#if RETENTIONS
byte log_start;
#define LOG_START log_start
#else
#define LOG_START 0
#endif
#if CUTS
byte log_end = N;
#define LOG_END log_end
#else
#define LOG_END N
#endif

/* ---- what may be, because a person or a fault has made it so; nobody in the protocol reads it */
#if RETENTIONS
byte written[N];             /* how often it was written down as lost */
#define WRITTEN(k) written[k]
#else
#define WRITTEN(k) 0
#endif
#if ORDERS
bit excused[N];              /* a person has decided that nobody answers it */
bit skipped[N];              /* it was passed by without a decision: the next one for its token is the first */
bit gone[N];                 /* Postgres has lost the decision */
bit back;                    /* a person has ordered an offset before the committed one */
#define EXCUSED(k) excused[k]
#define SKIPPED(k) skipped[k]
#define GONE(k) gone[k]
#else
#define EXCUSED(k) 0
#define SKIPPED(k) 0
#define GONE(k) 0
#endif
#if ORDERS || EXPIRIES
bit again[N];                /* it may be answered once more */
#define AGAIN(k) again[k]
#else
#define AGAIN(k) 0
#endif
#if EXPIRIES
byte lately;                 /* where the last batch that Postgres has committed begins */
bit at_rest;                 /* a lane has found everything published since, or was stopped in good order */
#endif
#define HAD(k) (told[k] || WRITTEN(k) || EXCUSED(k) || (k) == MARKER)

/* ---- one late request */
byte what, arg, count;
bit newest;                  /* its epoch, or its generation, is still the current one */
#if VERIFY == 0
bit known;                   /* the leader of its partition knows a newer epoch */
#endif
#if ID_PER_WORKER
bit whose;
#else
#define whose 0
#endif

/* ---- the two lanes */
bit valid[2];                /* its producer's epoch is the newest */
bit tainted[2];              /* a request was retried under the surface */
bit whole[2];                /* answers are sent whole; not: shortened */
bit failed[2];               /* mutant NO_GATHER */
byte reopening[2];           /* 0 at the start, 1 after OutcomeUnknown, 2 after MessageTooLarge */
byte position[2], seen[2];   /* where it reads; next_offset of its Hold */
byte size[2], piece[2];      /* the batch; which part of it Postgres is at: 0 all, 1 left half, 2 right half */
byte sending[2];             /* how much of the batch this publication holds */
byte recalled0[2], recalled1[2], answer0[2], answer1[2];
#if READ_BEFORE_OPEN
byte read[2];
#endif
#if EXTRA
byte kept[2];                /* the committed offset, as the lane knows it; N + 1: none */
byte first_seen[2];          /* first_offset, as it stood in the row that was taken */
#define NOW (absent -> N + 1 : offset)
#define KEPT kept[me]
#else
#define NOW offset
#define KEPT position[me]
#endif
#if ORDERS
byte to_order[2];            /* the order that stood in the row, or that was made by the start itself, plus 1 */
bit losing[2];               /* it is the latter */
byte lost_from[2], lost_to[2];
#endif
#if RESTORES
bit unopened_seen[2];
#endif
#if QUIET
bit idle[2];                 /* no lane is at work */
#define NOBODY_WORKS (member == NOBODY && idle[0] && idle[1] && what == 0)
#endif
#if STATEMENTS
byte chain_read[2];
#endif

/* A fenced lane waits for a heartbeat, and one whose publications fail again and again waits ever longer (patience.py):
 * longer than the 30 ms after which a client that was told CONCURRENT_TRANSACTIONS asks again. Only DEAF needs that. */
#if DEAF
bit asks_again[2];
#define OUTWAITED (!asks_again[1 - me])
#define ASK_AGAIN(yes) asks_again[me] = yes
#else
#define OUTWAITED true
#define ASK_AGAIN(yes) skip
#endif

byte k, j;                   /* scratch, 0 between steps */
bit clash;

#define ANSWERED (HAD(0) && HAD(N-1) && HAD(N/2) && HAD(N > 1))
/* Nothing stands in an open transaction, or results after it would be hidden until the coordinator times it out. */
#define NOTHING(id) (!pending[(id)*N] && !pending[(id)*N + N-1] && !pending[(id)*N + N/2] && !pending[(id)*N + (N>1)])
#define CLOSED (NOTHING(0) && NOTHING(IDS-1))
#if DELIVERY == 0
#define DONE (offset == N && ANSWERED && CLOSED)
#else
#define DONE (ANSWERED && (CLOSED || (DELIVERY == 2 && REBALANCES > 0)))   /* a zombie's transaction may have to time out */
#endif

/* ---- Kafka ------------------------------------------------------------------------------------------------------- */

inline new_epoch(id) {
  if :: ID(0) == id -> valid[0] = 0 :: else fi;
  if :: ID(1) == id -> valid[1] = 0 :: else fi;
  if :: what && what < COMMIT_OFFSET && whose == id -> newest = 0 :: else fi
}

inline move_offset(to) {
#if ORDERS
  if
  :: to < offset && back ->                            /* a person wants answers once more */
     back = 0; offset = to; k = to;
     do
     :: k < N -> again[k] = (told[k] > 0); k++
     :: else -> break
     od
  :: else
  fi;
#endif
  assert(property_4 || !EXACT || to >= offset);
  k = 0;
  do
  :: k < to -> assert(property_4 || HAD(k)); k++
  :: else -> break
  od;
  k = 0;
#if EXPIRIES
  absent = 0;
#endif
  offset = to
}

inline visible_at_once(c, status) {
  assert(property_3 || (status) == EXPECTED(c));
  assert(property_3 || ((status) == OK) == (applied[c] == 1));
  if :: told[c] < 2 -> told[c]++ :: else fi;
  if :: (status) == OK && shown[c] < 2 -> shown[c]++ :: else fi
}

inline make_visible(id) {            /* what is pending becomes visible */
  assert(property_2 || !twice[id]);
  k = 0;
  do
  :: k < N ->
     if
     :: pending[id*N + k] ->
        assert(property_2 || !EXACT || told[k] == 0 || AGAIN(k));
        assert(property_3 || pending[id*N + k] == EXPECTED(k) || GONE(k));
        assert(property_3 || (pending[id*N + k] == OK) == (applied[k] == 1) || GONE(k));
        if :: told[k] < 2 -> told[k]++ :: else fi
     :: else
     fi;
     if
     :: event[id*N + k] ->
        assert(property_3 || applied[k] == 1 || GONE(k));
        assert(property_3 || !EXACT || shown[k] == 0 || AGAIN(k));
        if :: shown[k] < 2 -> shown[k]++ :: else fi
     :: else
     fi;
     assert(property_3 || !EXACT || NO_GATHER || (shown[k] > 0) == (told[k] && EXPECTED(k) == OK) || SKIPPED(k) || GONE(k));
#if ORDERS || EXPIRIES
     if :: pending[id*N + k] -> again[k] = 0 :: else fi;
#endif
     k++
  :: else -> break
  od;
  k = 0;
  if :: moving[id] -> move_offset(moving[id] - 1) :: else fi;
  k = 0;
  do
  :: k < N -> assert(property_4 || !EXACT || OFFSET_AFTER || !told[k] || k < offset || AGAIN(k)); k++
  :: else -> break
  od;
  k = 0
}

inline write_markers(id) {
  if
  :: txn[id] == TO_COMMIT -> make_visible(id); txn[id] = COMMITTED
  :: else -> txn[id] = ABORTED
  fi;
  k = 0;
  do
  :: k < N -> pending[id*N + k] = 0; event[id*N + k] = 0; k++
  :: else -> break
  od;
  k = 0;
  moving[id] = 0; twice[id] = 0;
#if VERIFY == 0
  if :: what && !newest -> known = 1 :: else fi;
#endif
  printf("SAY kafka: markers are written, transaction %d, the committed offset is %d\n", txn[id], offset)
}

inline put_result(id, c, status) {
  if :: pending[id*N + (c)] -> twice[id] = 1 :: else fi;
  pending[id*N + (c)] = status
}

inline put_event(id, c) {
  if :: event[id*N + (c)] -> twice[id] = 1 :: else fi;
  event[id*N + (c)] = 1
}

inline arrive() {            /* the late request */
  printf("SAY kafka: the late request %d (%d, %d) arrives, newest %d\n", what, arg, count, newest);
  if
  :: what == END_COMMIT -> if :: newest && txn[whose] == ONGOING -> txn[whose] = TO_COMMIT :: else fi
  :: what == END_ABORT -> if :: newest && txn[whose] == ONGOING -> txn[whose] = TO_ABORT :: else fi
  :: what == TXN_OFFSET -> if :: newest && txn[whose] == ONGOING -> moving[whose] = arg + 1 :: else fi
  :: what == ADD -> if :: newest && (txn[whose] == EMPTY || txn[whose] >= COMMITTED) -> txn[whose] = ONGOING :: else fi
  :: what == COMMIT_OFFSET -> if :: newest -> move_offset(arg) :: else fi
  :: what == PRODUCE_AT_LEAST ->
     visible_at_once(arg, rec[arg]);
     if :: count == 2 -> visible_at_once(arg + 1, rec[arg + 1]) :: else fi
  :: what == PRODUCE ->
#if VERIFY
     if :: newest && txn[whose] == ONGOING ->
#else
     if :: !known ->
#endif
        put_result(whose, arg, rec[arg]);
        if :: count == 2 -> put_result(whose, arg + 1, rec[arg + 1]) :: else fi
     :: else fi
  fi;
  what = 0; arg = 0; count = 0; newest = 0;
#if VERIFY == 0
  known = 0;
#endif
#if ID_PER_WORKER
  whose = 0
#endif
}

inline leave_late(request, argument, number, current) {
  late--; what = request; arg = argument; count = number; newest = current;
#if VERIFY == 0
  known = !(current);
#endif
#if ID_PER_WORKER
  whose = ID(me);
#endif
  printf("SAY %d: request %d (%d, %d) is late\n", me, request, argument, number)
}

#define MAY_BE_LATE (late > 0 && what == 0)

/* ---- a worker ---------------------------------------------------------------------------------------------------- */

inline forget_batch() {
  size[me] = 0; piece[me] = 0; sending[me] = 0; whole[me] = 0; tainted[me] = 0; failed[me] = 0; reopening[me] = 0;
  recalled0[me] = 0; recalled1[me] = 0; answer0[me] = 0; answer1[me] = 0
}

inline forget_lane() {
  ASK_AGAIN(0);
  forget_batch(); position[me] = 0; seen[me] = 0; valid[me] = 0;
#if EXTRA
  kept[me] = 0; first_seen[me] = 0;
#endif
#if ORDERS
  to_order[me] = 0; losing[me] = 0; lost_from[me] = 0; lost_to[me] = 0;
#endif
#if RESTORES
  unopened_seen[me] = 0;
#endif
#if STATEMENTS
  chain_read[me] = 0;
  if :: locked == me -> locked = NOBODY :: else fi;    /* its connection is gone */
#endif
#if READ_BEFORE_OPEN
  read[me] = 0
#endif
}

#define HELD ((NO_OWNER_CHECK || owner == me) && (NO_NEXT_CHECK || next_offset == seen[me]))
#define LOW (position[me] + (piece[me] == 2))                                /* the piece that Postgres is at */
#define HIGH (position[me] + (piece[me] == 1 -> 1 : size[me]))
#define IN_PIECE(c) (LOW <= (c) && (c) < HIGH)
#define ANSWER(c) ((c) == position[me] -> answer0[me] : answer1[me])
#define RECALLED(c) ((c) == position[me] -> recalled0[me] : recalled1[me])
#define FOLLOWING (position[me] + sending[me])
#define HAS_FACT (answer0[me] == OK || (sending[me] == 2 && answer1[me] == OK))
#define TOO_LARGE (whole[me] && position[me] <= LARGE && LARGE < FOLLOWING)
/* What a lane finds to take: a command, perhaps behind a marker. */
#define SOMETHING (position[me] < LOG_END && !(position[me] == MARKER && MARKER + 1 == LOG_END))
/* Why it does not start: the log is not the one that was decided on, or Postgres not the one that has decided. */
#define CONTRADICTED ((unopened && !absent && offset > 0) || (!unopened && (LOG_END < next_offset || ANOTHER_RECORD)))
#define AHEAD (!unopened && !absent && NOT_ORDERED && offset > next_offset)
#define OPENED (txn[ID(me)] == ONGOING && valid[me])
#define MINE (assigned[me] == 1)
/* A revoked lane may finish what it is at, but only so long: where time matters, it gets no further than to the next
 * InitProducerId. */
#if defined(LIVE) && !NO_CANCEL
#define UNCANCELLED MINE
#else
#define UNCANCELLED true
#endif

#define CRASH atomic { crashes > 0 -> crashes--; goto crashed }
#define CANCEL atomic { !MINE -> goto _let_go }                              /* the partition was revoked */
#if MASKED > 0
#define MASK atomic { !valid[me] && masked > 0 -> masked--; goto _settled }
#elif MASKED < 0
#define MASK atomic { !valid[me] -> goto _settled }
#else
#define MASK atomic { false -> skip }
#endif

inline answer(c, status) {
  if
  :: c == position[me] -> answer0[me] = status
  :: else -> answer1[me] = status
  fi
}

inline decide_one(c) {       /* decide, apply, record */
  if
  :: c == MARKER -> skip
  :: c == position[me] && recalled0[me] -> answer0[me] = recalled0[me]
  :: c != position[me] && recalled1[me] -> answer1[me] = recalled1[me]
  :: else ->
#if EXTRA
     assert(property_3 || !told[c] || AGAIN(c));       /* what was answered is decided again only if a person says so */
#endif
#if ORDERS
     gone[c] = 0;
#endif
     if
     :: c == BAD || (BLAME_BATCH && IN_PIECE(BAD)) -> answer(c, INTERNAL)
     :: else ->
        if
        :: !effective[TOKEN(c)] ->
           effective[TOKEN(c)] = 1; applied[c]++; answer(c, OK);
#if STATEMENTS
           chain_read[me]++;
#endif
           assert(property_3 || applied[c] == 1)
        :: else -> answer(c, REFUSED)
        fi
     fi;
     if :: !NO_RECORD -> rec[c] = ANSWER(c) :: else fi
  fi
}

proctype Worker(byte me) {
_let_go:
  atomic {
    forget_lane();
#if QUIET
    idle[me] = 1
#endif
  }

_start_missing:
  if
  :: atomic { assigned[me] -> assigned[me] = 1;
#if QUIET
       idle[me] = 0
#endif
     }
  :: CRASH
  fi;

take:                                                  /* take_lane: a fresh owner id */
#if !OPEN_BEFORE_OWN
  if
  :: atomic { UNCANCELLED && UNLOCKED -> owner = me; seen[me] = next_offset;
#if READ_BEFORE_OPEN
       read[me] = offset;
#endif
#if EXTRA
       first_seen[me] = first_offset;
#endif
#if ORDERS
       to_order[me] = ordered; losing[me] = 0; lost_from[me] = 0; lost_to[me] = 0;
#endif
#if RESTORES
       unopened_seen[me] = unopened;
#endif
#if BLOCKS
       if :: blocked -> printf("SAY %d: the row says that it is blocked\n", me); goto stays_blocked :: else fi;
#endif
       printf("SAY %d: takes the lane, next_offset %d\n", me, next_offset); goto open }
  :: CRASH :: CANCEL
  fi;
#endif

require_owned:                                        /* Postgres is asked before a batch is published again */
  if
  :: atomic { reopening[me] == 0 || NO_QUESTION -> skip }
  :: atomic { reopening[me] != 0 && !NO_QUESTION && owner == me -> skip }
  :: atomic { reopening[me] != 0 && !NO_QUESTION && owner != me -> goto confirmed_after }        /* LaneLost */
  :: CRASH :: CANCEL
  fi;

open:                                                  /* InitProducerId, of the first producer and of every later one */
  if
  :: atomic { NO_SETTLING && AT_LEAST(me) -> goto opened }
  :: atomic { UNCANCELLED && txn[ID(me)] == ONGOING && !(NO_SETTLING && AT_LEAST(me)) ->
       new_epoch(ID(me)); txn[ID(me)] = TO_ABORT; ASK_AGAIN(1); printf("SAY %d: InitProducerId meets an open transaction\n", me); goto open }
  :: atomic { UNCANCELLED && (txn[ID(me)] == EMPTY || txn[ID(me)] >= COMMITTED) && !(NO_SETTLING && AT_LEAST(me)) ->
       new_epoch(ID(me)); txn[ID(me)] = EMPTY; valid[me] = 1; tainted[me] = 0; failed[me] = 0; ASK_AGAIN(0);
       printf("SAY %d: a producer is open\n", me);
       if :: reopening[me] == 0 -> goto opened :: else fi }
  :: atomic { away > 0 && reopening[me] == 0 -> away--; valid[me] = 0; goto take }
  :: CRASH :: CANCEL
  fi;
#if !NO_SECOND_QUESTION
  if                                                   /* require_owned: who takes the lane from now on fences this producer */
  :: atomic { owner == me -> skip }
  :: atomic { owner != me -> goto confirmed_after }
  :: atomic { DEAF && member != me && OUTWAITED ->     /* deaf to Postgres too: DependencyUnavailable, and all of it again */
       printf("SAY %d: hears nothing of postgres\n", me); goto require_owned }
  :: CRASH :: CANCEL
  fi;
#endif
  goto read_committed;

opened:                                                /* the first producer */
#if OPEN_BEFORE_OWN
  if
  :: atomic { owner = me; seen[me] = next_offset }
  :: CRASH :: CANCEL
  fi;
#endif
#if ORDERS
  if
  :: atomic { to_order[me] -> goto _carry_out }
  :: atomic { !to_order[me] -> skip }
  fi;
#endif

read_committed:
  if
#if EXTRA
  :: atomic { reopening[me] == 0 ->                    /* where_to_start */
       kept[me] = NOW;
       printf("SAY %d: finds the offset %d, the row %d to %d, the log %d to %d\n", me, NOW, first_seen[me], seen[me], LOG_START, LOG_END);
#if RESTORES
       if
       :: unopened_seen[me] && !absent && offset > 0 && !FIRST_START_ANYWAY -> goto block
       :: unopened_seen[me] && (absent || offset == 0 || FIRST_START_ANYWAY) -> position[me] = LOG_START; goto open_lane
       :: else
       fi;
#endif
#if CUTS
       if
       :: LOG_END < seen[me] || (ANOTHER_RECORD && !NO_SAME_RECORD) -> goto block
       :: else
       fi;
#endif
       if
       :: !absent && offset > seen[me] && !GO_ON_FORWARD && !DECIDE_AGAIN ->
          printf("SAY %d: is blocked\n", me);
          assert(property_4 || RESTORES > 0 || owner != me || offset <= next_offset);        /* else: "set forward by hand" */
          goto stays_blocked
       :: else
       fi;
       /* else: "set back by hand" */
       assert(property_4 || !EXACT || !valid[me] || owner != me || absent || offset >= first_seen[me]);
       d_step {
         position[me] = (absent -> (FROM_LOG_START -> 0 : first_seen[me]) : ((DECIDE_AGAIN && offset > seen[me]) -> seen[me] : offset));
#if RETENTIONS
         lost_from[me] = ((absent || offset < first_seen[me] || LOSE_ANSWERED) -> first_seen[me] : offset);
         if
         :: lost_from[me] < LOG_START && !LOSE_SILENTLY -> lost_to[me] = LOG_START
         :: else -> lost_from[me] = 0
         fi;
         if :: position[me] < LOG_START -> position[me] = LOG_START :: else fi
#endif
       };
#if RETENTIONS
       if :: lost_to[me] -> goto _lose :: else fi
#endif
     }
#else
  :: atomic { reopening[me] == 0 ->                    /* where_to_start */
#if READ_BEFORE_OPEN
       position[me] = read[me]; read[me] = 0;
#else
       position[me] = offset;
#endif
       printf("SAY %d: starts at %d, next_offset %d\n", me, position[me], seen[me]);
       assert(property_4 || !EXACT || READ_BEFORE_OPEN || !valid[me] || offset >= first_offset);   /* else: "set back by hand" */
       if
       :: position[me] > seen[me] -> printf("SAY %d: is blocked\n", me); goto confirmed_after    /* LaneBlocked */
       :: else
       fi }
#endif
  :: atomic { reopening[me] != 0 && NO_READ_AFTER_OPEN -> reopening[me] = 0; goto publish }
  :: atomic { reopening[me] != 0 && !NO_READ_AFTER_OPEN ->                   /* _settled */
       printf("SAY %d: reads the offset %d after %d to %d\n", me, offset, position[me], FOLLOWING);
       if
       :: NOW == FOLLOWING -> goto published
       :: NOW == KEPT && NOW != FOLLOWING ->
          if
          :: reopening[me] == 2 ->                     /* _publish: in halves, until one stands alone */
             if
             :: NO_HALVING -> goto refused_for_ever
             :: !NO_HALVING && sending[me] == 2 -> sending[me] = 1
             :: else -> whole[me] = 0; if :: OTHER_STATUS -> answer0[me] = INTERNAL :: else fi
             fi
          :: else
          fi;
          reopening[me] = 0;
          goto publish
       :: else -> goto confirmed_after                 /* LaneLost */
       fi }
  :: atomic { away > 0 && reopening[me] == 0 -> away--; valid[me] = 0; goto take }
  :: CRASH :: CANCEL
  fi;

_take:
  if
  :: atomic { SOMETHING && MINE ->
       if
       :: position[me] != MARKER -> size[me] = 1
       :: BATCH > 1 && position[me] + 1 < LOG_END && position[me] + 1 != MARKER -> size[me] = 2
       fi;
       printf("SAY %d: takes %d from %d\n", me, size[me], position[me]) }
#if BLOCKS                                             /* assumed: the next command, or a restart, makes it look */
  :: atomic { !SOMETHING && MINE && owner != me -> goto confirmed_after }
#endif
#if RETENTIONS                                         /* or it is taken, because it was fetched before */
  :: atomic { position[me] < LOG_START -> printf("SAY %d: finds that what comes next was removed\n", me); goto confirmed_after }
#endif
#if EXPIRIES
  :: atomic { !NO_SETTLE && KEPT == seen[me] && first_offset < next_offset && UNLOCKED ->        /* _settle */
       if
       :: owner == me && next_offset == seen[me] -> first_offset = next_offset; at_rest = 1; printf("SAY %d: all is settled\n", me)
       :: else -> goto confirmed_after
       fi;
       goto _take }
#endif
#if PASSES                                             /* _rest: a batch of no commands */
  :: atomic { !NO_REST && !SOMETHING && MINE && (KEPT == N + 1 || LOG_END > KEPT) && !(REST_UNDECIDED) ->
       size[me] = LOG_END - position[me]; printf("SAY %d: passes %d by\n", me, size[me]); goto _renew }
  :: atomic { !NO_REST && !SOMETHING && MINE && LOG_END > position[me] && REST_UNDECIDED ->
       size[me] = 1; goto decided }
#endif
#if STOPS
  :: atomic { stops > 0 && MINE && (EXPIRIES == 0 || NO_SETTLE || KEPT != seen[me] || owner != me || first_offset == next_offset) ->
       stops--; assigned[me] = 0; printf("SAY %d: is stopped\n", me);
#if EXPIRIES
       if :: KEPT == seen[me] && owner == me && next_offset == seen[me] -> at_rest = 1 :: else fi;
#endif
       if :: member == me -> member = NOBODY :: else fi;
       goto _let_go }
#endif
  :: atomic { SOMETHING && away > 0 -> away--; forget_lane(); goto take }
  :: CRASH :: CANCEL
  fi;

_recall:                                               /* before the transaction, and only below next_offset */
  if
  :: atomic { LOW < seen[me] && !NO_RECALL ->
       if :: piece[me] != 2 -> recalled0[me] = rec[position[me]] :: else fi;
       if :: size[me] == 2 && piece[me] != 1 -> recalled1[me] = rec[position[me] + 1] :: else fi }
  :: atomic { !(LOW < seen[me] && !NO_RECALL) -> skip }
  :: CRASH :: CANCEL
  fi;

_renew:                                                 /* one transaction: _renew, load, decide, apply, record, COMMIT */
#if STATEMENTS
  if
  :: atomic { UNLOCKED && !HELD -> printf("SAY %d: another has taken the lane in postgres\n", me); goto confirmed_after }
  :: atomic { UNLOCKED && HELD -> chain_read[me] = chain; if :: NO_LOCK :: else -> locked = me fi; printf("SAY %d: holds the lane\n", me) }
  :: CRASH :: CANCEL
  fi;
#endif
_move:
  if
#if STATEMENTS
  :: atomic { true ->
       if :: locked == me -> locked = NOBODY :: else fi;
#else
  :: atomic { !HELD -> printf("SAY %d: another has taken the lane in postgres\n", me); goto confirmed_after }
  :: atomic { HELD ->
#endif
       clash = (size[me] > 0 && !NO_RECORD && ((!RECALLED(LOW) && rec[LOW]) || (!RECALLED(HIGH-1) && rec[HIGH-1])));
       if
       :: clash -> clash = 0; recalled0[me] = 0; recalled1[me] = 0; goto overtaken
       :: else
       fi;
       if                                              /* BatchRefused: in pieces */
       :: HIGH - LOW == 2 && !BLAME_BATCH && ((IN_PIECE(BAD) && !RECALLED(BAD)) || (TOGETHER && !recalled0[me])) ->
          recalled0[me] = 0; recalled1[me] = 0; piece[me] = 1 + RIGHT_FIRST; goto _recall
       :: else
       fi;
       d_step {                                        /* a lone bad command: _give_up, likewise one transaction */
         j = LOW;
         do
         :: j < HIGH -> decide_one(j); j++
         :: else -> break
         od;
         j = 0;
         recalled0[me] = 0; recalled1[me] = 0;
         first_offset = (SETTLE_EARLY -> HIGH : position[me]);
#if CUTS
         if :: HIGH > next_offset -> last = HIGH; other = 0 :: else fi;
#endif
#if EXPIRIES
         lately = position[me]; at_rest = 0;
#endif
#if STATEMENTS
         chain = chain_read[me]; chain_read[me] = 0;
         j = 0;
         do
         :: j < N -> k = k + applied[j]; j++
         :: else -> break
         od;
         j = 0;
         assert(property_3 || chain == k);             /* the chain has no fork */
         k = 0;
#endif
         if :: NO_GREATEST || HIGH > next_offset -> next_offset = HIGH :: else fi
       };
       printf("SAY %d: postgres commits %d to %d, answers %d %d\n", me, LOW, HIGH, answer0[me], answer1[me]);
       if
       :: seen[me] = next_offset
       :: lost > 0 -> lost--; answer0[me] = 0; answer1[me] = 0; piece[me] = 0; printf("SAY %d: COMMIT's answer is lost\n", me); goto _recall
       fi;
       if
       :: piece[me] == 1 + RIGHT_FIRST -> piece[me] = 2 - RIGHT_FIRST; goto _recall
       :: else -> piece[me] = 0
       fi }
  :: atomic { rollbacks > 0 -> rollbacks--; recalled0[me] = 0; recalled1[me] = 0; answer0[me] = 0; answer1[me] = 0; piece[me] = 0;
#if STATEMENTS
       if :: locked == me -> locked = NOBODY :: else fi;    /* one that stands still is ended by Postgres as well */
#endif
       goto _recall }
  :: CRASH :: CANCEL
  fi;
decided:
  atomic { sending[me] = size[me]; whole[me] = 1 };

publish:
  if
  :: atomic { AT_LEAST(me) -> if :: OFFSET_BEFORE -> goto commit :: else -> goto send_at_least fi }
  :: atomic { !AT_LEAST(me) && OFFSET_BEFORE -> goto commit }
  :: atomic { !AT_LEAST(me) && !OFFSET_BEFORE -> skip }
  fi;
begin_transaction:                                     /* AddPartitionsToTxn */
  if
  :: atomic { !valid[me] -> goto fenced }
  :: atomic { valid[me] && (txn[ID(me)] <= ONGOING || txn[ID(me)] >= COMMITTED) -> txn[ID(me)] = ONGOING;
       if
       :: skip
       :: lost > 0 -> lost--; tainted[me] = 1
       :: MAY_BE_LATE -> leave_late(ADD, 0, 0, valid[me]); tainted[me] = 1
       fi }
  :: CRASH :: CANCEL
  fi;
send:                                                  /* Produce: the results */
  if
  :: atomic { !valid[me] -> goto fenced }
  :: MASK
  :: atomic { valid[me] && !OPENED -> if :: NO_GATHER -> failed[me] = 1 :: else -> goto _settled fi }
  :: atomic { OPENED && TOO_LARGE -> if :: NO_GATHER -> failed[me] = 1 :: else -> reopening[me] = 2; goto require_owned fi }
  :: atomic { OPENED && !TOO_LARGE ->
       if :: sending[me] > 0 -> put_result(ID(me), position[me], answer0[me]) :: else fi;
       if :: sending[me] == 2 -> put_result(ID(me), position[me] + 1, answer1[me]) :: else fi;
#if VERIFY == 0
       if :: what && !newest -> known = 1 :: else fi;
#endif
       printf("SAY %d: results of %d to %d are sent\n", me, position[me], FOLLOWING);
       if
       :: skip
       :: lost > 0 -> lost--; tainted[me] = 1          /* sent again, and dropped by its sequence number */
       :: lost > 0 -> lost--; goto _settled            /* not answered within the deadline */
       fi }
  :: atomic { refusals > 0 -> refusals--; if :: NO_GATHER -> failed[me] = 1 :: else -> goto _settled fi }
  :: atomic { MAY_BE_LATE && !TOO_LARGE -> leave_late(PRODUCE, position[me], sending[me], valid[me]); goto _settled }
  :: CRASH :: CANCEL
  fi;
  if                                                   /* Produce: the transition events */
  :: atomic { !HAS_FACT || failed[me] -> skip }
  :: atomic { HAS_FACT && !failed[me] && !valid[me] -> goto fenced }
  :: atomic { HAS_FACT && !failed[me] && valid[me] && !OPENED -> if :: NO_GATHER -> skip :: else -> goto _settled fi }
  :: atomic { HAS_FACT && !failed[me] && OPENED ->
       if :: answer0[me] == OK -> put_event(ID(me), position[me]) :: else fi;
       if :: sending[me] == 2 && answer1[me] == OK -> put_event(ID(me), position[me] + 1) :: else fi }
  :: atomic { HAS_FACT && refusals > 0 -> refusals--; if :: NO_GATHER -> skip :: else -> goto _settled fi }
  :: CRASH :: CANCEL
  fi;
send_offsets_to_transaction:                           /* AddOffsetsToTxn and TxnOffsetCommit */
#if !OFFSET_BEFORE && !OFFSET_AFTER
  if
  :: atomic { !valid[me] -> goto fenced }
  :: atomic { valid[me] && !OPENED -> goto _settled }
  :: atomic { OPENED ->
       moving[ID(me)] = (WHOLE_BOUNDARY -> position[me] + size[me] : FOLLOWING) + 1;
       if
       :: skip
       :: lost > 0 -> lost--; tainted[me] = 1
       :: lost > 0 -> lost--; goto _settled
       :: MAY_BE_LATE -> leave_late(TXN_OFFSET, FOLLOWING, 0, valid[me]); tainted[me] = 1
       fi }
  :: atomic { MAY_BE_LATE -> leave_late(TXN_OFFSET, FOLLOWING, 0, valid[me]); goto _settled }
  :: CRASH :: CANCEL
  fi;
#endif
commit_transaction:                                    /* EndTxn(commit) */
  if
  :: atomic { !valid[me] -> goto fenced }
  :: atomic { valid[me] && (txn[ID(me)] == EMPTY || txn[ID(me)] == ABORTED || txn[ID(me)] == TO_ABORT) -> goto _settled }
  :: atomic { valid[me] && (txn[ID(me)] == ONGOING || txn[ID(me)] == COMMITTED) ->
       if :: txn[ID(me)] == ONGOING -> txn[ID(me)] = TO_COMMIT :: else fi;
       printf("SAY %d: the transaction up to %d is to be committed\n", me, FOLLOWING);
       if
       :: skip
       :: lost > 0 -> lost--; tainted[me] = 1
       :: lost > 0 -> lost--; goto _settled            /* the outcome is unknown */
       :: MAY_BE_LATE -> leave_late(END_COMMIT, 0, 0, valid[me]); tainted[me] = 1
       fi }
  :: atomic { lost > 0 -> lost--; goto _settled }      /* never arrived */
  :: atomic { MAY_BE_LATE -> leave_late(END_COMMIT, 0, 0, valid[me]); goto _settled }
  :: CRASH :: CANCEL
  fi;
#if OFFSET_AFTER
  goto commit;
#endif
after_commit:
  atomic {
    if
    :: tainted[me] && !NO_REPLACEMENT -> goto _settled
    :: else -> goto published
    fi
  }

send_at_least:                                         /* AtLeast.publish: what is sent is visible at once */
  if
  :: atomic { TOO_LARGE -> if :: NO_GATHER -> skip :: else -> reopening[me] = 2; goto require_owned fi }
  :: atomic { !TOO_LARGE ->
       d_step {
         visible_at_once(position[me], answer0[me]);
         if :: sending[me] == 2 -> visible_at_once(position[me] + 1, answer1[me]) :: else fi
       };
       printf("SAY %d: results of %d to %d are sent\n", me, position[me], FOLLOWING);
       if
       :: skip
       :: lost > 0 -> lost--; goto _settled
       fi }
  :: atomic { refusals > 0 -> refusals--; if :: NO_GATHER -> skip :: else -> goto _settled fi }
  :: atomic { MAY_BE_LATE && !TOO_LARGE -> leave_late(PRODUCE_AT_LEAST, position[me], sending[me], 1); goto _settled }
  :: CRASH :: CANCEL
  fi;
  if :: OFFSET_BEFORE -> goto published :: !OFFSET_BEFORE -> skip fi;

commit:                                                /* consumer.commit, which the group's generation fences */
  if
  :: atomic { member == me && MINE && (AT_LEAST(me) || OFFSET_BEFORE || txn[ID(me)] != TO_COMMIT) -> move_offset(FOLLOWING);
       if
       :: skip
       :: lost > 0 -> lost--; goto _settled
       :: MAY_BE_LATE -> leave_late(COMMIT_OFFSET, FOLLOWING, 0, 1)
       fi }
  :: atomic { !(member == me && MINE) -> goto confirmed_after }
  :: atomic { MAY_BE_LATE -> leave_late(COMMIT_OFFSET, FOLLOWING, 0, member == me && MINE); goto _settled }
  :: CRASH :: CANCEL
  fi;
  if
  :: AT_LEAST(me) && OFFSET_BEFORE -> goto send_at_least
  :: AT_LEAST(me) && !OFFSET_BEFORE -> goto published
  :: !AT_LEAST(me) && OFFSET_BEFORE -> goto begin_transaction
  :: !AT_LEAST(me) && !OFFSET_BEFORE -> goto after_commit
  fi;

published:
  atomic {
    position[me] = FOLLOWING;
#if EXTRA
    kept[me] = position[me];
#endif
    printf("SAY %d: published up to %d\n", me, position[me]);
    tainted[me] = 0; reopening[me] = 0; failed[me] = 0; whole[me] = 1;
    if
    :: sending[me] < size[me] -> answer0[me] = answer1[me]; answer1[me] = 0; size[me] = 1; goto publish
    :: else -> forget_batch(); goto _take
    fi
  }

_settled:                                              /* OutcomeUnknown: the producer is dropped, and a new one opened */
  printf("SAY %d: the outcome is unknown\n", me);
#if SEND_ABORT
  if
  :: atomic { OPENED -> txn[ID(me)] = TO_ABORT }
  :: atomic { MAY_BE_LATE -> leave_late(END_ABORT, 0, 0, valid[me]) }
  :: atomic { !OPENED -> skip }
  :: CRASH
  fi;
#endif
  atomic { OUTWAITED -> reopening[me] = 1; tainted[me] = 0; failed[me] = 0; valid[me] = 0; goto require_owned };

fenced:
  printf("SAY %d: is fenced\n", me);
confirmed_after:                                       /* LaneLost: a heartbeat sent from now on must be answered well */
  if
  :: atomic { !NO_RESTART && (NO_HEARTBEAT || (member == me && MINE && OUTWAITED)) -> forget_lane(); goto take }
  :: atomic { !DEAF && member != me && assigned[me] == 1 -> assigned[me] = 0; goto _let_go }
  :: CRASH :: CANCEL
  fi;

#if RETENTIONS
_lose:                                                 /* lose_commands: one statement */
  if
  :: atomic { (owner == me || LOSE_UNOWNED) && UNLOCKED ->
       d_step {
         j = lost_from[me];
         do
         :: j < lost_to[me] ->
            written[j]++;
            assert(property_6 || written[j] == 1);
            assert(property_6 || NO_SECOND_QUESTION || told[j] == 0 || AGAIN(j));
            if :: rec[j] == 0 -> skipped[j] = 1 :: else fi;
            j++
         :: else -> break
         od;
         j = 0
       };
       printf("SAY %d: writes down that %d to %d are lost\n", me, lost_from[me], lost_to[me]);
       if :: LOSE_APART -> goto lose_later :: else fi;
lose_row:
       first_offset = lost_to[me];
       if :: lost_to[me] > next_offset -> next_offset = lost_to[me] :: else fi;
       if :: NO_ORDER :: else -> ordered = lost_to[me] + 1 fi;
       if
       :: true -> seen[me] = next_offset; to_order[me] = lost_to[me] + 1; kept[me] = lost_to[me]; losing[me] = 1;
          lost_from[me] = 0; lost_to[me] = 0; goto _carry_out
       :: lost > 0 -> lost--; forget_lane(); goto take
       fi }
  :: atomic { owner != me && !LOSE_UNOWNED -> goto confirmed_after }
  :: CRASH :: CANCEL
  fi;
lose_later:                                            /* mutant LOSE_APART */
  if
  :: atomic { owner == me -> goto lose_row }
  :: atomic { owner != me -> goto confirmed_after }
  :: CRASH :: CANCEL
  fi;
#endif

#if ORDERS
_carry_out:                                            /* the owner is asked for first */
  if
  :: atomic { owner == me || ORDER_UNASKED -> if :: FORGET_EARLY -> ordered = 0 :: else fi }
  :: atomic { owner != me && !ORDER_UNASKED -> goto confirmed_after }
  :: CRASH :: CANCEL
  fi;
  if                                                   /* publish: no messages, and the offset */
  :: atomic { !valid[me] -> goto fenced }
  :: atomic { valid[me] && (txn[0] <= ONGOING || txn[0] >= COMMITTED) -> txn[0] = ONGOING; moving[0] = to_order[me];
       if
       :: true
       :: lost > 0 -> lost--; forget_lane(); goto take          /* DependencyUnavailable */
       fi }
  :: CRASH :: CANCEL
  fi;
  if
  :: atomic { !valid[me] -> goto fenced }
  :: atomic { valid[me] && txn[0] != ONGOING -> forget_lane(); goto take }
  :: atomic { OPENED -> txn[0] = TO_COMMIT; printf("SAY %d: the order to commit %d is carried out\n", me, to_order[me] - 1);
       if
       :: true
       :: lost > 0 -> lost--; forget_lane(); goto take
       fi }
  :: atomic { lost > 0 -> lost--; forget_lane(); goto take }    /* never arrived */
  :: CRASH :: CANCEL
  fi;
#if ORDER_UNSETTLED || FORGET_UNSETTLED
  goto order_done;
#endif
settle_order:                                          /* open: another producer */
  if
  :: atomic { txn[0] == ONGOING -> new_epoch(0); txn[0] = TO_ABORT; goto settle_order }         /* a successor's */
  :: atomic { txn[0] == EMPTY || txn[0] >= COMMITTED -> new_epoch(0); txn[0] = EMPTY; valid[me] = 1; printf("SAY %d: the order is settled\n", me);
       if :: FORGET_UNSETTLED -> goto carried_out :: else fi }
  :: atomic { lost > 0 -> lost--; forget_lane(); goto take }
  :: CRASH :: CANCEL
  fi;
order_done:
  if
  :: atomic { owner == me && UNLOCKED -> ordered = 0; printf("SAY %d: the order is forgotten\n", me);
       if :: FORGET_UNSETTLED -> goto settle_order :: else fi;
carried_out:
       to_order[me] = 0;
       if
       :: losing[me] -> losing[me] = 0; goto _take
       :: else -> goto read_committed
       fi }
  :: atomic { owner != me -> goto confirmed_after }
  :: CRASH :: CANCEL
  fi;
#endif

#if RESTORES
open_lane:
  if
  :: atomic { owner == me && unopened -> unopened = 0; first_offset = position[me]; next_offset = position[me]; seen[me] = position[me]; goto _take }
  :: atomic { !(owner == me && unopened) -> goto confirmed_after }
  :: CRASH :: CANCEL
  fi;
#endif

#if BLOCKS
block:                                                /* block_lane: a person must decide */
  if
  :: atomic { owner == me -> if :: NO_BLOCK :: else -> blocked = 1 fi; NOTICED; printf("SAY %d: blocks the lane\n", me) }
  :: atomic { owner != me -> goto confirmed_after }
  :: CRASH :: CANCEL
  fi;
#endif
#if EXTRA
stays_blocked:                                         /* it starts again and again; left out are those that change nothing */
  if
#if BLOCKS
  :: atomic { member == me && MINE && (owner != me || !(blocked || CONTRADICTED || AHEAD)) -> forget_lane(); goto take }
#else
  :: atomic { member == me && MINE && (owner != me || !AHEAD) -> forget_lane(); goto take }
#endif
  :: CRASH :: CANCEL
  fi;
#endif

overtaken:                                             /* BatchConflict: what does not change cannot end it */
  if
  :: atomic { !HELD -> goto confirmed_after }
  :: atomic { LOW < seen[me] && !NO_RECALL -> goto _recall }
  :: CRASH :: CANCEL
  fi;

refused_for_ever:                                      /* mutant NO_HALVING */
  if
  :: CRASH :: CANCEL
  fi;

crashed:
  atomic {
    printf("SAY %d: crashes\n", me);
    assigned[me] = 0;
    if :: member == me -> member = NOBODY :: else fi;
    goto _let_go
  }
}

/* ---- the world --------------------------------------------------------------------------------------------------- */

inline give(w) {
  member = w; assigned[w] = 2;
  if :: what == COMMIT_OFFSET -> newest = 0 :: else fi;
  printf("SAY group: the partition is assigned to %d\n", w)
}

#if QUIET
inline come_to_rest() {      /* so much time passes that Kafka has ended every transaction */
  if :: txn[0] == ONGOING -> new_epoch(0); txn[0] = TO_ABORT :: else fi;
  if :: txn[0] == TO_COMMIT || txn[0] == TO_ABORT -> write_markers(0) :: else fi
}
#endif

#if EXPIRIES
inline expire() {
  come_to_rest();
  absent = 1; offset = 0;
  k = lately;
  do
  :: k < next_offset -> again[k] = (told[k] && !at_rest); k++
  :: else -> break
  od;
  k = 0;
  printf("SAY kafka: the group's offset is forgotten, first_offset %d, next_offset %d\n", first_offset, next_offset)
}
#endif

#if RESTORES
inline put_back(to) {        /* Postgres as it was when next_offset was this */
  k = to;
  do
  :: k < next_offset ->
     if
     :: rec[k] -> gone[k] = 1; if :: applied[k] -> effective[TOKEN(k)] = 0 :: else fi; rec[k] = 0; applied[k] = 0
     :: else
     fi;
     k++
  :: else -> break
  od;
  k = 0;
  next_offset = to; first_offset = (to > 0 -> to - 1 : 0); ordered = 0; blocked = 0;
  printf("SAY postgres: is put back to next_offset %d\n", to)
}
#endif

#if CUTS
inline cut(at) {             /* what comes later at these offsets are other commands, for other tokens */
  come_to_rest();
  log_end = at;
  other = (last > at);
  k = at;
  do
  :: k < N ->
     if :: k % 2 == 0 || applied[k] -> effective[TOKEN(k)] = 0 :: else fi;
     told[k] = 0; shown[k] = 0; rec[k] = 0; applied[k] = 0; excused[k] = 0;
     k++
  :: else -> break
  od;
  k = 0;
  printf("SAY kafka: the log is cut at %d\n", at)
}
#endif

#if BLOCKS
inline mended(first, next, order) {
  printf("SAY a person: the row is to be %d to %d, the order (plus 1) %d, instead of %d to %d; committed %d\n", first, next, order, first_offset, next_offset, offset);
  first_offset = first; next_offset = next; ordered = order; owner = NOBODY; blocked = 0;
  if :: order && order - 1 < offset -> back = 1 :: else fi;
#if RESTORES
  unopened = 0;
#endif
#if CUTS
  last = 0; other = 0;
#endif
}

inline pass_over(from, to) { /* a person decides that nobody decides or answers these (again) */
  k = from;
  do
  :: k < to -> excused[k] = 1; if :: rec[k] == 0 -> skipped[k] = 1 :: else fi; k++
  :: else -> break
  od;
  k = 0
}
#endif

#if CUTS
/* Assumed: what was cut, has grown again and is removed, all of it while nobody works, is beyond knowledge. */
#define STILL_THERE (!other || noticed)
#else
#define STILL_THERE true
#endif

proctype World() {
  do
#if RETENTIONS
  :: atomic { retentions > 0 && log_start < LOG_END && STILL_THERE -> retentions--; log_start++;
       do
       :: log_start < LOG_END -> log_start++
       :: break
       od;
       printf("SAY kafka: the log begins at %d\n", log_start) }
#endif
#if EXPIRIES
  :: d_step { expiries > 0 && NOBODY_WORKS && !absent -> expiries--; expire() }
#endif
#if RESTORES
  :: d_step { restores > 0 && !unopened -> restores--; put_back(0); unopened = 1; owner = NOBODY }
  :: atomic { restores > 0 && next_offset > 0 -> restores--;
       do
       :: j + 1 < next_offset -> j++
       :: break
       od;
       d_step { put_back(j); j = 0 } }
  :: d_step { unopened && blocked -> pass_over(0, offset); mended(offset, offset, 0) }                          /* skip */
  :: d_step { unopened && blocked -> mended(LOG_START, LOG_START, LOG_START + 1) }                              /* from-start */
  :: d_step { AHEAD && !blocked -> mended(next_offset, next_offset, next_offset + 1) }                          /* redo */
  :: d_step { AHEAD && !blocked -> pass_over(next_offset, offset); mended(offset, offset, 0) }                  /* skip */
#endif
#if CUTS
  :: d_step { cuts > 0 && NOBODY_WORKS && LOG_START == 0 && next_offset > 0 -> cuts--; cut(0) }
  :: d_step { cuts > 0 && NOBODY_WORKS && LOG_START <= 1 && next_offset > 1 -> cuts--; cut(1) }
  :: d_step { cuts > 0 && NOBODY_WORKS && LOG_START <= 2 && next_offset > 2 -> cuts--; cut(2) }
  :: d_step { log_end < N -> log_end++ }
  :: d_step { blocked || (NO_BLOCK && CONTRADICTED) -> pass_over(0, LOG_START); mended(LOG_START, log_end, LOG_START + 1) }    /* from-start */
  :: d_step { blocked || (NO_BLOCK && CONTRADICTED) -> pass_over(0, log_end); mended(log_end, log_end, log_end + 1) }          /* from-end */
#endif
  :: d_step { txn[0] == TO_COMMIT || txn[0] == TO_ABORT -> write_markers(0) }
#if ID_PER_WORKER
  :: d_step { txn[1] == TO_COMMIT || txn[1] == TO_ABORT -> write_markers(1) }
#endif
  :: d_step { what -> arrive() }
  :: d_step { timeouts > 0 && txn[0] == ONGOING -> timeouts--; new_epoch(0); txn[0] = TO_ABORT; printf("SAY kafka: the transaction is timed out\n") }
  :: d_step { member == NOBODY -> give(0) }
  :: d_step { member == NOBODY -> give(1) }
  :: d_step { rebalances > 0 -> rebalances--; give(0) }
  :: d_step { rebalances > 0 -> rebalances--; give(1) }
#ifndef LIVE
  :: d_step { assigned[0] && member == 1 -> assigned[0] = 0; printf("SAY 0: learns that the partition is gone\n") }
  :: d_step { assigned[1] && member == 0 -> assigned[1] = 0; printf("SAY 1: learns that the partition is gone\n") }
  :: d_step { (crashes | rebalances | lost | late | refusals | timeouts | rollbacks | away | EXTRA_FAULTS) > 0 ->
#if EXTRA
       stops = 0; retentions = 0; expiries = 0; restores = 0; cuts = 0;
#endif
       crashes = 0; rebalances = 0; lost = 0; late = 0; refusals = 0; timeouts = 0; rollbacks = 0; away = 0 }
  :: atomic { timeout -> assert(property_1 || DONE) }; break   /* nothing can move any more */
#endif
  od
}

#ifdef LIVE
proctype Heartbeats() {      /* a process of its own, so that fairness covers it */
  do
  :: d_step { !DEAF && assigned[0] && member == 1 -> assigned[0] = 0 }
  :: d_step { !DEAF && assigned[1] && member == 0 -> assigned[1] = 0 }
  od
}
ltl property_5 { <> DONE }
#endif

init {
  atomic {
    assigned[0] = 1;
    run Worker(0); run Worker(1); run World();
#ifdef LIVE
    run Heartbeats()
#endif
  }
}
