// The console page: follows /events and shows each state. It only reads, and puts text in as text.
"use strict";

const MOST_OPEN_LANES = 24; // more working lanes than these are folded away
const RECONNECT_SHOWN_MS = 5000; // a shorter gap is no news

const at = (id) => document.getElementById(id);

// --- elements --------------------------------------------------------------------------------------------------------

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function shape(name, properties) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(properties)) made.setAttribute(key, value);
  return made;
}

// Replace what is below an element, but only if it has changed: a selection or the focus in it stays.
const shown = new Map();
function show(id, facts, make) {
  const text = JSON.stringify(facts);
  if (shown.get(id) === text) return;
  shown.set(id, text);
  at(id).replaceChildren(...[make(facts)].flat());
}

const paste = (command) => (command ? element("code", { class: "paste" }, command) : "");
const none = (text) => element("p", { class: "none" }, text);

function table(caption, heads, rows) {
  const head = heads.map(([text, kind]) => element("th", { scope: "col", class: kind ?? "" }, text));
  const body = rows.map((cells) =>
    element("tr", {}, ...cells.map((cell, place) => element("td", { class: heads[place][1] ?? "" }, ...[cell].flat()))),
  );
  return element(
    "div",
    { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    element("table", {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body)),
  );
}

// --- texts -----------------------------------------------------------------------------------------------------------

const count = (number, singular, plural = `${singular}s`) => `${whole(number)} ${number === 1 ? singular : plural}`;
const whole = (number) => Math.round(number).toLocaleString("en").replaceAll(",", "\u202f");

function rate(number) {
  return number >= 10 || number === 0 ? whole(number) : number.toFixed(1);
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.0005) return "0 s";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 90) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return value < 172800 ? `${(value / 3600).toFixed(1)} h` : `${Math.round(value / 86400)} days`;
}

const clock = (text) => `${text.slice(11, 19)} UTC`;
const since = (text) => element("time", { datetime: text, title: text }, clock(text));

// --- plots -----------------------------------------------------------------------------------------------------------

const WIDTH = 300, HEIGHT = 80;

function path(values, length, top) {
  let drawn = "", pen = "M";
  values.forEach((value, place) => {
    if (value === null) { pen = "M"; return; }
    const x = WIDTH - (values.length - 1 - place) * (WIDTH / (length - 1));
    const y = HEIGHT - 2 - (Math.min(value, top) / top) * (HEIGHT - 6);
    drawn += pen === "M" ? `M${x.toFixed(1)} ${y.toFixed(1)}h.1` : `L${x.toFixed(1)} ${y.toFixed(1)}`; // one alone is a dot
    pen = "L";
  });
  return drawn;
}

function plot(title, unit, lines, length) {
  const known = lines.flatMap((line) => line.values.filter((value) => value !== null));
  const most = known.length ? Math.max(...known) : 0;
  const now = (line) => line.values.at(-1) ?? null;
  const told = lines.map((line) => `${line.name ? `${line.name} ` : ""}now ${unit(now(line))}`).join(", ");
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${title}: ${told}, most ${unit(most)}` });
  svg.append(shape("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT - 2, y2: HEIGHT - 2 }));
  svg.append(shape("line", { class: "grid", x1: 0, x2: WIDTH, y1: 4, y2: 4 }));
  lines.forEach((line, place) =>
    svg.append(shape("path", { class: place ? "line second" : "line", d: path(line.values, length, most || 1) })));
  const keys = lines.map((line, place) =>
    line.name ? element("span", { class: place ? "key second" : "key" }, ` ${line.name} ${unit(now(line))}`) : null);
  return element("figure", {}, element("figcaption", {}, `${title}, most ${unit(most)}`, ...keys), svg);
}

function plots(history) {
  const { samples } = history, length = Math.round(900 / history.seconds);
  const of = (name) => samples.map((sample) => sample[name]);
  return [
    plot("Answers a second", rate, [{ name: "", values: of("rate") }], length),
    plot("Time to the answer", seconds, [{ name: "median", values: of("middle") }, { name: "99 %", values: of("slowest") }], length),
    plot("Commands behind", whole, [{ name: "", values: of("lag") }], length),
  ];
}

// --- sections --------------------------------------------------------------------------------------------------------

function about(worker) {
  const member = worker.member ? `, member ${worker.member}` : "";
  return `${worker.name}, version ${worker.version}, group ${worker.group}${member}, up since ${worker.started.slice(0, 19).replace("T", " ")} UTC`;
}

function banner({ ready, reasons }) {
  const head = element("strong", {}, ready ? "Ready: partitions assigned, database and broker reachable" : "Not ready");
  return reasons.length ? [head, element("ul", {}, ...reasons.map((reason) => element("li", {}, reason)))] : [head];
}

function totals({ totals, history, lanes }) {
  const last = history.samples.at(-1);
  const tile = (name, value) => element("div", {}, element("dt", {}, name), element("dd", {}, value));
  return [
    tile("Answers a second", last ? rate(last.rate) : "–"),
    tile("Time to the answer", seconds(last?.middle)),
    tile("Commands behind", whole(totals.lag)),
    tile("Oldest unanswered", seconds(totals.oldest_seconds)),
    tile("In hand", whole(totals.in_hand)),
    tile("Lanes working", `${lanes.filter((lane) => lane.state === "working").length} of ${lanes.length}`),
  ];
}

const GRAVITY = { working: "good", blocked: "bad" };
const HEADS = [["Partition"], ["State"], ["Since"], ["Behind", "number"], ["Oldest", "number"], ["In hand", "number"], ["Reason, and what to do"]];

function lane(each) {
  const state = element("span", { class: GRAVITY[each.state] ?? "warn" }, each.state);
  const losses = each.losses.length ? `commands lost at ${each.losses.join(", ")}` : "";
  const hidden = each.hidden ? `${count(each.hidden, "offset")} behind an open transaction of a sender` : "";
  const said = [each.reason, losses, hidden].filter(Boolean).join("; ");
  return [each.name, state, since(each.since), whole(each.lag), seconds(each.oldest_seconds), whole(each.in_hand),
    [said, said && each.way_out ? " " : "", paste(each.way_out)]];
}

function lanes(all) {
  if (!all.length) return none("None: the group has given this worker no partition.");
  const odd = all.filter((each) => each.state !== "working" || each.losses.length);
  const well = all.filter((each) => !odd.includes(each));
  if (all.length <= MOST_OPEN_LANES) return table(count(all.length, "lane"), HEADS, [...odd, ...well].map(lane));
  const made = odd.length ? [table(`${count(odd.length, "lane")} to look at`, HEADS, odd.map(lane))] : [];
  const label = `${count(well.length, "working lane")}, ${whole(well.reduce((sum, each) => sum + each.lag, 0))} commands behind`;
  return [...made, element("details", {}, element("summary", {}, label), table(label, HEADS, well.map(lane)))];
}

const answers = (all) => table("By status code", [["Status"], ["Answers", "number"]], all.map((each) => [each.code, whole(each.count)]));

function dependencies(all) {
  const state = (each) => element("span", { class: each.state === "here" ? "good" : "bad" }, each.state);
  return table("Servers and limits", [["Name"], ["State"], ["Since"], ["Reason"]],
    all.map((each) => [each.name, state(each), each.since ? since(each.since) : "", each.reason]));
}

function recent(all) {
  if (!all.length) return none("None since the start.");
  return table("The newest first", [["At"], ["Status"], ["Command"], ["Look closer"]],
    all.map((each) => [since(each.at), each.dead_letter ? `${each.code}, dead letter` : each.code, element("code", {}, each.command_id), paste(each.way_out)]));
}

function workers({ fault, members }) {
  if (fault) return none(`Not known: ${fault}`);
  if (!members.length) return none("None has partitions now.");
  return table(count(members.length, "worker"), [["Member"], ["Host"], ["Partitions", "number"]],
    members.map((each) => [each.this ? [element("code", {}, each.member), " (this one)"] : element("code", {}, each.member), each.host, whole(each.partitions)]));
}

function settings(all) {
  if (!all.length) return none("None.");
  const text = (value) => (Array.isArray(value) ? value.join(", ") : String(value));
  return table("Secrets are masked", [["Variable"], ["Value"]], all.map((each) => [element("code", {}, each.variable), element("code", {}, text(each.value))]));
}

function showAll(state) {
  at("about").textContent = about(state.worker);
  at("state").className = `banner ${state.ready ? (state.reasons.length ? "warn" : "good") : "bad"}`;
  document.title = `${state.ready ? "" : "not ready: "}effective-worker`;
  show("state", { ready: state.ready, reasons: state.reasons }, banner);
  show("totals", { totals: state.totals, history: state.history, lanes: state.lanes }, totals);
  show("plots", state.history, plots);
  for (const [id, make] of Object.entries({ lanes, answers, dependencies, recent, workers, settings })) show(id, state[id], make);
}

// --- events ----------------------------------------------------------------------------------------------------------

let heard = null, lost = null;

function gone() {
  at("state").className = "banner bad";
  show("state", { heard }, () => [element("strong", {}, "This page hears nothing from the worker"),
    element("p", {}, heard ? `What is shown is from ${clock(heard)}. It goes on as soon as the worker answers.` : "It does not answer yet.")]);
  document.title = "not heard: effective-worker";
}

function follow() {
  const events = new EventSource("events");
  events.onmessage = (message) => {
    clearTimeout(lost);
    lost = null;
    const state = JSON.parse(message.data);
    heard = state.now;
    showAll(state);
  };
  events.onerror = () => {
    lost ??= setTimeout(gone, RECONNECT_SHOWN_MS);
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, RECONNECT_SHOWN_MS); // refused: it gives up
  };
}

follow();
