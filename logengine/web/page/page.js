// The page of `logengine web`. Whatever a record contains is put into text nodes, never into markup.
"use strict";

const LEVELS = "{levels}".split(",");
const SHOWN_LEVELS = ["TRACE", "DEBUG", "INFO", "NOTE", "WARN", "ERROR", "CRIT", "ALERT", "EMERG"];
const WARNING = LEVELS.indexOf("warning");
const ERROR = LEVELS.indexOf("error");
const PAGE_ROWS = 200;
const ROWS_MAX = 800; // in the document; others are asked for again
const WAITING_ROWS_MAX = 2000; // that arrived while the page is paused
const HISTOGRAM_REQUESTS_MAX = 1000;
const UNREAD = -2; // the level of records that are counted and not read yet
const RECONNECT_MS = 2000;
const $ = (id) => document.getElementById(id);
const log = $("log");
const FIELDS = ["where", "text", "since", "until", "level"];

// What the address of the page says.
let search = { streams: [], where: "", text: "", since: "", until: "", level: "", at: "" };
// What is shown: rows from `begin` to `end`, each the next number of each stream.
let view = newView();
let selected = null;
let isLive = true;
let isHeldByScrolling = false; // and goes on when it is scrolled down again
let streams = [];
let histogram = null;

function newView() {
  return {
    stopped: new AbortController(), rows: [], begin: {}, end: {}, isAtStart: false, isAtEnd: false,
    isLoading: true, shown: null, source: null, waiting: [], isSearching: false,
  };
}

// --- the address ---

function readAddress() {
  const query = new URLSearchParams(location.search);
  search = { streams: query.getAll("stream"), at: query.get("at") || "" };
  for (const name of FIELDS) search[name] = query.get(name) || "";
  for (const name of FIELDS) $(name).value = search[name];
}

function addressOf(parts) {
  const query = new URLSearchParams();
  for (const stream of parts.streams) query.append("stream", stream);
  for (const name of [...FIELDS, "at"]) if (parts[name]) query.set(name, parts[name]);
  const text = query.toString();
  return text ? `?${text}` : location.pathname;
}

let addressTimer = 0;
function noteSelection(cursor) {
  search.at = cursor;
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => history.replaceState(null, "", addressOf(search)), 250);
}

function go(change, { isNew = true } = {}) {
  clearTimeout(addressTimer);
  search = { ...search, at: "", ...change };
  if (isNew) history.pushState(null, "", addressOf(search));
  for (const name of FIELDS) $(name).value = search[name];
  show();
}

// --- the server ---

class Refused extends Error {
  constructor(message, expression) {
    super(message);
    this.expression = expression;
  }
}

function queryOf(parts) {
  const query = new URLSearchParams();
  for (const stream of search.streams) query.append("stream", stream);
  if (search.where) query.append("where", search.where);
  if (search.level) query.append("where", `level >= ${search.level}`);
  for (const name of ["text", "since", "until"]) if (search[name]) query.set(name, search[name]);
  for (const [name, value] of Object.entries(parts)) query.append(name, value);
  return query;
}

async function ask(path, query, signal) {
  const response = await fetch(`api/${path}?${query}`, { signal });
  if (response.status === 403) throw new Refused("The server has started again: open the URL that it printed.");
  const answer = await response.json();
  if (!response.ok) throw new Refused(answer.error, answer.expression);
  return answer;
}

function placeOf(text) {
  const place = {};
  for (const each of text.split(",")) {
    const colon = each.lastIndexOf(":");
    if (colon > 0) place[each.slice(0, colon)] = Number(each.slice(colon + 1));
  }
  return place;
}

const textOfPlace = (place) => Object.entries(place).map(([stream, seq]) => `${stream}:${seq}`).join(",");

// --- a view: rows around a place ---

function show(place) {
  view.stopped.abort();
  closeLive(view);
  const current = (view = newView());
  log.replaceChildren();
  selected = null;
  tell("");
  mistake(null);
  $("newer").hidden = true;
  drawStreams();
  if (!place) askHistogram(current);
  current.shown = load(current, place || (search.at ? { at: search.at } : null));
}

async function load(current, at) {
  try {
    if (at) await showAround(current, at);
    else await showEnd(current);
  } catch (error) {
    failed(error);
    return;
  } finally {
    current.isLoading = false;
  }
  fill(current);
}

async function showEnd(current) {
  const page = await ask("records", queryOf({ limit: PAGE_ROWS }), current.stopped.signal);
  current.begin = placeOf(page.begin);
  current.end = placeOf(page.end);
  current.isAtStart = page.is_last;
  current.isAtEnd = true;
  add(current, page.rows, false);
  log.scrollTop = log.scrollHeight;
  openLive(current);
}

async function showAround(current, at) {
  const query = queryOf({ ...at, direction: "after", limit: PAGE_ROWS });
  const after = await ask("records", query, current.stopped.signal);
  current.begin = placeOf(after.begin);
  current.end = placeOf(after.end);
  current.isAtEnd = after.is_last;
  add(current, after.rows, false);
  log.scrollTop = 0;
  const before = await ask("records", queryOf({ from: after.begin, limit: PAGE_ROWS }), current.stopped.signal);
  current.begin = placeOf(before.begin);
  current.isAtStart = before.is_last;
  addBefore(current, before.rows);
  const row = at.at && current.rows.find((each) => cursorOf(each) === at.at);
  if (row) {
    select(row);
    log.scrollTop = row.element.offsetTop - log.clientHeight / 3;
  } else if (at.at) {
    tell(`There is no record ${at.at} here: it is gone, not there yet, or the filter leaves it out.`);
  }
  if (current.isAtEnd) openLive(current);
}

// Reads on while rows are missing around what is visible.
async function fill(current) {
  if (current.isLoading || current !== view) return;
  current.isLoading = true;
  try {
    for (;;) {
      if (current !== view) return;
      const margin = log.clientHeight;
      const isShort = log.scrollHeight < 2 * log.clientHeight;
      if (!current.isAtStart && (log.scrollTop < margin || isShort)) await readBefore(current);
      else if (!current.isAtEnd && log.scrollHeight - log.scrollTop - log.clientHeight < margin) await readAfter(current);
      else break;
    }
    if (current.isSearching) tell(current.rows.length ? "" : "No records.");
    else if (!current.rows.length) tell("No records.");
    current.isSearching = false;
  } catch (error) {
    failed(error);
  } finally {
    current.isLoading = false;
  }
  drawPlace();
}

async function readBefore(current) {
  const query = queryOf({ from: textOfPlace(current.begin), limit: PAGE_ROWS });
  const page = await ask("records", query, current.stopped.signal);
  if (current !== view) return;
  const isAtBottom = isScrolledDown();
  current.begin = placeOf(page.begin);
  current.isAtStart = page.is_last;
  addBefore(current, page.rows);
  if (isAtBottom && isFollowing()) log.scrollTop = log.scrollHeight;
  searching(current, page, "back");
}

async function readAfter(current) {
  const query = queryOf({ from: textOfPlace(current.end), direction: "after", limit: PAGE_ROWS });
  const page = await ask("records", query, current.stopped.signal);
  if (current !== view) return;
  current.end = placeOf(page.end);
  current.isAtEnd = page.is_last;
  add(current, page.rows, true);
  searching(current, page, "on");
  if (current.isAtEnd) openLive(current);
}

function searching(current, page, how) {
  if (page.is_last || page.rows.length) return;
  current.isSearching = true;
  tell(`Searching ${how}: ${page.begin.split(",")[0]} … Esc stops`);
}

function add(current, rows, isCut) {
  append(current, rows);
  if (isCut) cutTop(current);
}

function append(current, rows) {
  const added = rows.map(rowOf);
  current.rows.push(...added);
  log.append(...added.map((each) => each.element));
}

function addBefore(current, rows) {
  const before = log.scrollHeight;
  const added = rows.map(rowOf);
  current.rows.unshift(...added);
  log.prepend(...added.map((each) => each.element));
  log.scrollTop += log.scrollHeight - before;
  const excess = current.rows.splice(ROWS_MAX);
  for (const row of excess.reverse()) {
    const first = row.data.seq || row.data.first;
    if (first) current.end[row.data.stream] = first;
    row.element.remove();
  }
  if (excess.length) {
    current.isAtEnd = false;
    current.waiting = [];
    closeLive(current);
  }
}

function cutTop(current) {
  const excess = current.rows.splice(0, Math.max(0, current.rows.length - ROWS_MAX));
  if (!excess.length) return;
  const before = log.scrollHeight;
  for (const row of excess) {
    const last = row.data.seq || row.data.last;
    if (last) current.begin[row.data.stream] = last + 1;
    row.element.remove();
  }
  current.isAtStart = false;
  log.scrollTop -= before - log.scrollHeight;
}

// --- rows ---

const pad = (number, digits = 2) => String(number).padStart(digits, "0");

function localTime(timestamp, withDate = true) {
  const moment = new Date(timestamp);
  const time = `${pad(moment.getHours())}:${pad(moment.getMinutes())}:${pad(moment.getSeconds())}`;
  const date = `${pad(moment.getMonth() + 1)}-${pad(moment.getDate())}`;
  return withDate ? `${date} ${time}.${timestamp.slice(20, 23)}` : time;
}

function part(kind, text) {
  const element = document.createElement("span");
  element.className = kind;
  if (text) element.append(...marked(text));
  return element;
}

// The text, with what was searched for marked.
function marked(text) {
  const wanted = search.text.toLowerCase();
  if (!wanted) return [text];
  const parts = [];
  let start = 0;
  for (let found; (found = text.toLowerCase().indexOf(wanted, start)) >= 0; start = found + wanted.length) {
    const mark = document.createElement("mark");
    mark.append(text.slice(found, found + wanted.length));
    parts.push(text.slice(start, found), mark);
  }
  parts.push(text.slice(start));
  return parts;
}

function rowOf(data) {
  const element = document.createElement("div");
  const row = { data, element };
  element.role = "option";
  element.ariaSelected = "false";
  if (data.gap) {
    element.className = data.gap === "removed" || data.gap === "recorded" ? "gap" : "gap damage";
    element.append(`— ${data.stream}: ${data.message} —`);
    if (data.onOpen) {
      const open = document.createElement("button");
      open.type = "button";
      open.append("read from there");
      open.onclick = data.onOpen;
      element.append(open);
    }
  } else {
    const level = data.level ?? -1;
    element.className = `row${level >= ERROR ? " error" : level === WARNING ? " warning" : ""}`;
    element.id = `row-${data.stream}-${data.seq}`;
    const when = part("when");
    when.append(localTime(data.time));
    when.title = data.time;
    const name = part(`level level-${level}`);
    name.append(level < 0 ? "" : SHOWN_LEVELS[level]);
    const place = part("place");
    const stream = part("stream");
    stream.append(data.stream);
    place.append(stream);
    if (data.program) {
      const program = part("program");
      program.append(` ${data.program}`);
      place.append(program);
    }
    const what = part("what");
    what.dir = "ltr";
    if (data.message) what.append(part("message", data.message));
    for (const [key, value] of data.fields || []) {
      const field = part("field");
      const equals = part("equals");
      equals.append("=");
      field.append(part("name", key), equals, part("value", value));
      what.append(field, " ");
    }
    if (data.is_cut) what.append("…");
    element.append(when, name, place, what);
  }
  element.onclick = () => {
    if (!String(getSelection())) select(row);
    if (!data.gap && !$("record").hidden) openRecord();
  };
  element.ondblclick = () => openRecord();
  return row;
}

const cursorOf = (row) => (row.data.gap ? "" : `${row.data.stream}:${row.data.seq}`);

function select(row, isVisible = true) {
  if (selected) selected.element.ariaSelected = "false";
  selected = row;
  if (!row) return;
  row.element.ariaSelected = "true";
  if (row.element.id) log.setAttribute("aria-activedescendant", row.element.id);
  if (isVisible) row.element.scrollIntoView({ block: "nearest" });
  if (cursorOf(row)) noteSelection(cursorOf(row));
  drawPlace();
}

// What is pressed while the page loads is about what it will show.
async function isLoaded() {
  const current = view;
  await current.shown;
  return current === view;
}

// Without a selection, the first key selects the newest row, or the first one that is visible.
function selectVisible(step) {
  const visible = view.rows.filter((row) => row.element.offsetTop >= log.scrollTop);
  const isAtNewest = isScrolledDown() && (isLive || log.scrollTop > 0);
  select((step < 0 || isAtNewest ? view.rows.at(-1) : visible[0]) || null);
}

async function move(step) {
  if (!(await isLoaded())) return;
  const index = selected ? view.rows.indexOf(selected) : -1;
  if (index < 0) {
    selectVisible(step);
    return;
  }
  if (step < 0) hold();
  const next = view.rows[index + step];
  if (next) select(next);
  fill(view);
  if (!$("record").hidden) openRecord();
}

// --- live ---

const isScrolledDown = () => log.scrollHeight - log.scrollTop - log.clientHeight < 4;
const isFollowing = () => isLive && view.isAtEnd;

function openLive(current) {
  if (search.until || current.source || current !== view) return;
  const source = new EventSource(`api/live?${queryOf({ from: textOfPlace(current.end) })}`);
  current.source = source;
  source.onopen = drawLive;
  source.onmessage = (event) => arrived(current, JSON.parse(event.data));
  source.onerror = () => {
    closeLive(current);
    setTimeout(() => reopenLive(current), RECONNECT_MS);
  };
}

// An event source does not say why it failed; another request does.
async function reopenLive(current) {
  if (current !== view || current.source || !current.isAtEnd) return;
  try {
    await ask("streams", "", current.stopped.signal);
    openLive(current);
  } catch (error) {
    failed(error);
    if (!(error instanceof Refused)) setTimeout(() => reopenLive(current), RECONNECT_MS);
  }
}

function closeLive(current) {
  current.source?.close();
  current.source = null;
  drawLive();
}

function arrived(current, event) {
  if (current !== view) return;
  if (event.error) {
    closeLive(current);
    tell(`Not live: ${event.error}`);
    setTimeout(() => reopenLive(current), RECONNECT_MS);
  }
  const rows = event.rows.filter((each) => each.gap || each.seq >= (current.end[each.stream] || 1));
  if (event.dropped) {
    const from = { ...current.end, ...event.dropped_from };
    const message = `${event.dropped.toLocaleString("en")} records came faster than this page takes them`;
    rows.unshift({ gap: "dropped", stream: "live", message, onOpen: () => { setLive(false); show({ from: textOfPlace(from) }); } });
  }
  for (const each of rows) if (each.seq) current.end[each.stream] = each.seq + 1;
  current.waiting.push(...rows);
  if (isLive) showWaiting(current);
  else holdWaiting(current);
  countLive(event.rows);
}

function showWaiting(current) {
  if (!current.waiting.length) return;
  const rows = current.waiting.splice(0).slice(-ROWS_MAX);
  append(current, rows);
  cutTop(current);
  log.scrollTop = log.scrollHeight;
  tell("");
}

function holdWaiting(current) {
  const count = current.waiting.length;
  if (count > WAITING_ROWS_MAX) {
    // The rows end before these: from there on they are read again when they are wanted.
    for (const each of current.waiting.reverse()) if (each.seq) current.end[each.stream] = each.seq;
    current.waiting = [];
    current.isAtEnd = false;
    closeLive(current);
  }
  const newer = $("newer");
  newer.hidden = !count;
  newer.textContent = count > WAITING_ROWS_MAX ? "▼ many newer records" : `▼ ${count.toLocaleString("en")} newer`;
}

function setLive(isOn) {
  isLive = isOn;
  if (isOn) isHeldByScrolling = false;
  $("live").ariaPressed = String(isOn);
  drawLive();
  if (isOn) $("newer").hidden = true;
}

// Whoever waits for records must see that none can come.
function drawLive() {
  const isConnected = view.source?.readyState === EventSource.OPEN;
  $("live").textContent = !isLive ? "Paused" : isConnected ? "Live" : "Not live";
  $("live").classList.toggle("lost", isLive && !isConnected);
}

function hold(byScrolling = false) {
  isHeldByScrolling = byScrolling && (isLive || isHeldByScrolling);
  if (isLive) setLive(false);
}

function resume() {
  setLive(true);
  if (view.isAtEnd && !search.until) {
    openLive(view);
    showWaiting(view);
    log.scrollTop = log.scrollHeight;
  } else {
    go({ until: "" }, { isNew: Boolean(search.until) });
  }
}

// --- searching for errors ---

async function findError(direction) {
  const from = selected && cursorOf(selected) ? { at: cursorOf(selected) } : { from: textOfPlace(direction === "after" ? view.begin : view.end) };
  const own = selected ? cursorOf(selected) : "";
  const current = view;
  const query = (place) => {
    const asked = queryOf({ ...place, direction, limit: 2 });
    asked.append("where", "level >= error");
    return asked;
  };
  try {
    tell("Searching for an error … Esc stops");
    for (let place = from; ; ) {
      const page = await ask("records", query(place), current.stopped.signal);
      const rows = page.rows.filter((each) => !each.gap && `${each.stream}:${each.seq}` !== own);
      const found = direction === "after" ? rows[0] : rows.at(-1);
      if (found) {
        const cursor = `${found.stream}:${found.seq}`;
        hold();
        tell("");
        const row = view.rows.find((each) => cursorOf(each) === cursor);
        if (row) select(row);
        else go({ at: cursor }, { isNew: false });
        return;
      }
      if (page.is_last) break;
      place = { from: direction === "after" ? page.end : page.begin };
    }
    tell(direction === "after" ? "No later error." : "No earlier error.");
  } catch (error) {
    failed(error);
  }
}

// --- one record ---

async function openRecord() {
  if (!(await isLoaded())) return;
  if (!selected) selectVisible(1);
  if (!selected || selected.data.gap) return;
  const cursor = cursorOf(selected);
  try {
    const { record } = await ask("record", new URLSearchParams({ at: cursor }), view.stopped.signal);
    $("record").hidden = false;
    $("record-name").textContent = cursor;
    $("record-message").replaceChildren(...marked(record.row.message || ""));
    $("record-line").textContent = record.line;
    $("record-fields").replaceChildren(...record.fields.map(fieldOf));
    hold();
    selected?.element.scrollIntoView({ block: "nearest" });
  } catch (error) {
    failed(error);
  }
}

function fieldOf([name, value, condition]) {
  const row = document.createElement("tr");
  const cells = [name, value, ""].map((text) => {
    const cell = document.createElement("td");
    cell.append(text);
    return cell;
  });
  if (condition) {
    cells[2].append(
      button("+", `only ${condition}`, () => narrow(condition)), " ",
      button("−", `not ${condition}`, () => narrow(`not ${condition}`)),
    );
  }
  row.append(...cells);
  return row;
}

function button(text, title, onclick) {
  const element = document.createElement("button");
  element.type = "button";
  element.append(text);
  element.title = element.ariaLabel = title;
  element.onclick = onclick;
  return element;
}

function narrow(condition) {
  const where = search.where.trim();
  const whole = / or /i.test(where) ? `(${where})` : where;
  go({ where: whole ? `${whole} and ${condition}` : condition, at: selected ? cursorOf(selected) : "" });
}

function showContext() {
  if (!selected || !cursorOf(selected)) return;
  hold();
  go({ where: "", text: "", level: "", since: "", until: "", at: cursorOf(selected) });
}

async function copyLink() {
  if (!selected || !cursorOf(selected)) return;
  const link = new URL(addressOf({ ...search, at: cursorOf(selected) }), location.href).href;
  try {
    await navigator.clipboard.writeText(link);
    tell("Copied.");
  } catch {
    tell(link);
  }
}

function closeRecord() {
  $("record").hidden = true;
  log.focus();
}

// --- the histogram ---

// First how many records there are, which the server mostly knows without reading them; then their
// levels, bar by bar. A bar of which some levels are still missing has a part without a colour.
async function askHistogram(current) {
  histogram = { counts: new Map(), totals: null, since: null, until: null, every: null, isLast: false };
  const own = histogram;
  drawHistogram();
  try {
    await countRecords(own, current, { levels: "later" });
    if (own !== histogram || ![...own.counts.values()].some((levels) => levels.has(UNREAD))) return;
    own.totals = new Map([...own.counts].map(([start, levels]) => [start, sumOf(levels)]));
    own.counts = new Map();
    await countRecords(own, current, {});
    if (own !== histogram) return;
    if (own.isLast) own.totals = null; // what could not be read does not count
    drawHistogram();
  } catch (error) {
    failed(error);
  }
}

async function countRecords(own, current, asked) {
  let from = null;
  own.isLast = false;
  for (let request = 0; request < HISTOGRAM_REQUESTS_MAX; request += 1) {
    const query = queryOf({ ...asked, ...(from !== null && { from }), ...(own.every && { every: own.every }) });
    if (own.since) {
      query.set("since", own.since);
      query.set("until", own.lastMoment);
    }
    const answer = await ask("histogram", query, current.stopped.signal);
    if (own !== histogram || !answer.counts) return;
    own.since = answer.since;
    own.until = own.until || answer.until;
    // The last record is counted too.
    own.lastMoment = own.lastMoment || (search.until ? answer.until : new Date(Date.parse(answer.until) + 1000).toISOString());
    own.every = answer.every;
    for (const [start, level, count] of answer.counts) {
      const bucket = own.counts.get(start) || new Map();
      bucket.set(level, (bucket.get(level) || 0) + count);
      own.counts.set(start, bucket);
    }
    own.isLast = answer.is_last;
    drawHistogram();
    if (answer.is_last) return;
    from = answer.from;
  }
}

const sumOf = (levels) => [...levels.values()].reduce((sum, count) => sum + count, 0);

// The counts of each bar by level, with the records whose levels are not known yet.
function barsOf({ counts, totals }) {
  if (!totals) return counts;
  return new Map([...new Set([...totals.keys(), ...counts.keys()])].map((start) => {
    const levels = new Map(counts.get(start));
    const unread = (totals.get(start) || 0) - sumOf(levels);
    if (unread > 0) levels.set(UNREAD, unread);
    return [start, levels];
  }));
}

// Where the time is drawn that the histogram covers, in milliseconds.
function span() {
  const start = Date.parse(histogram.since);
  const length = (histogram.every || 1) * 1000;
  const begins = [...barsOf(histogram).keys()].map((each) => Date.parse(each));
  const first = Math.min(start, ...begins);
  const stop = Math.max(Date.parse(histogram.until), ...begins.map((each) => each + length));
  return { start: first, stop: Math.max(stop, first + length) };
}

function drawHistogram(drag) {
  const canvas = $("bars");
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  if (!histogram?.since) {
    $("bars-note").textContent = "";
    return;
  }
  const colours = getComputedStyle(document.documentElement);
  const colour = (level) => colours.getPropertyValue(level === UNREAD ? "--level-unread" : level < 0 ? "--level-none" : `--level-${level}`);
  const { start, stop } = span();
  const scale = width / (stop - start);
  const bar = Math.max(1, histogram.every * 1000 * scale - 1);
  const bars = barsOf(histogram);
  const greatest = Math.max(1, ...[...bars.values()].map(sumOf));
  const room = height - 14;
  let total = 0;
  for (const [at, levels] of bars) {
    const x = (Date.parse(at) - start) * scale;
    let y = height - 2;
    for (const [level, count] of [...levels].sort((one, other) => other[0] - one[0])) {
      // A few errors among many records are seen.
      const size = Math.max(1.5, (count / greatest) * room);
      context.fillStyle = colour(level);
      context.fillRect(x, y - size, bar, size);
      y -= size;
      total += count;
    }
  }
  if (drag) {
    context.fillStyle = colours.getPropertyValue("--accent");
    context.globalAlpha = 0.25;
    context.fillRect(Math.min(drag.from, drag.to), 0, Math.abs(drag.to - drag.from), height);
    context.globalAlpha = 1;
  }
  const seen = firstVisible();
  if (seen) {
    context.fillStyle = colours.getPropertyValue("--accent");
    context.fillRect(Math.min(width - 2, (Date.parse(seen.data.time) - start) * scale), 0, 2, height);
  }
  const note = `${total.toLocaleString("en")} records${histogram.isLast || histogram.totals ? "" : " so far"} · ${localTime(new Date(start).toISOString())} to ${localTime(new Date(stop).toISOString())}`;
  $("bars-note").textContent = note;
  canvas.ariaLabel = `Over time: ${note}`;
}

function bucketText(x) {
  const { start, stop } = span();
  const at = start + (x / $("bars").clientWidth) * (stop - start);
  for (const [begin, levels] of barsOf(histogram)) {
    const from = Date.parse(begin);
    if (at < from || at >= from + histogram.every * 1000) continue;
    const lines = [...levels].sort((one, other) => other[0] - one[0]).map(([level, count]) => `${(level === UNREAD ? "…" : level < 0 ? "-" : LEVELS[level]).padEnd(10)}${count.toLocaleString("en").padStart(9)}`);
    return [localTime(begin), ...lines].join("\n");
  }
  return localTime(new Date(at).toISOString());
}

function watchHistogram() {
  const canvas = $("bars");
  const tip = $("bars-tip");
  let drag = null;
  const placeIn = (event) => event.clientX - canvas.getBoundingClientRect().left;
  canvas.onpointerdown = (event) => {
    if (!histogram?.since) return;
    canvas.setPointerCapture(event.pointerId);
    drag = { from: placeIn(event), to: placeIn(event) };
  };
  canvas.onpointermove = (event) => {
    if (!histogram?.since) return;
    tip.hidden = false;
    tip.textContent = bucketText(placeIn(event));
    tip.style.left = `${Math.max(4, Math.min(placeIn(event) + 8, canvas.clientWidth - tip.clientWidth - 8))}px`;
    if (!drag) return;
    drag.to = placeIn(event);
    drawHistogram(drag);
  };
  canvas.onpointerleave = () => { tip.hidden = true; };
  canvas.onpointerup = () => {
    if (!drag) return;
    const [low, high] = [drag.from, drag.to].sort((one, other) => one - other);
    drag = null;
    const { start, stop } = span();
    const timeAt = (x) => new Date(start + (Math.max(0, x) / canvas.clientWidth) * (stop - start)).toISOString();
    if (high - low < 4) {
      hold();
      show({ time: timeAt(low) });
      return;
    }
    hold();
    go({ since: timeAt(low), until: timeAt(high) });
  };
  canvas.ondblclick = () => go({ since: "", until: "" });
  new ResizeObserver(() => drawHistogram()).observe(canvas);
}

// --- the place in all records ---

function chosenStreams() {
  return streams.filter((each) => each.last_seq && (!search.streams.length || search.streams.includes(each.stream)));
}

function firstVisible() {
  const top = log.scrollTop;
  let low = 0;
  let high = view.rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (view.rows[middle].element.offsetTop < top) low = middle + 1;
    else high = middle;
  }
  return view.rows.slice(low, low + 50).find((row) => row.data.time);
}

// Of one stream numbers say where it is, of several times.
function fractionOf(row) {
  const chosen = chosenStreams();
  if (!row || !chosen.length) return 1;
  if (chosen.length === 1) {
    const { first_seq: first, last_seq: last } = chosen[0];
    return (row.data.seq - first) / Math.max(1, last - first);
  }
  const [since, until] = wholeTime(chosen);
  return (Date.parse(row.data.time) - since) / Math.max(1, until - since);
}

const wholeTime = (chosen) => [
  Math.min(...chosen.map((each) => Date.parse(each.since))), Math.max(...chosen.map((each) => Date.parse(each.until))),
];

function placeAt(fraction) {
  const chosen = chosenStreams();
  if (!chosen.length) return null;
  if (chosen.length === 1) {
    const { stream, first_seq: first, last_seq: last } = chosen[0];
    const seq = Math.round(first + fraction * (last - first));
    return { text: `${stream}:${seq}`, place: { from: `${stream}:${seq}` } };
  }
  const [since, until] = wholeTime(chosen);
  const time = new Date(since + fraction * (until - since)).toISOString();
  return { text: localTime(time), place: { time } };
}

let isDrawing = false;
function drawPlace() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    const row = firstVisible();
    const isEnd = view.isAtEnd && isScrolledDown();
    const fraction = isEnd ? 1 : Math.max(0, Math.min(1, fractionOf(row)));
    const room = $("rail").clientHeight - $("thumb").clientHeight;
    $("thumb").style.top = `${fraction * room}px`;
    $("rail").ariaValueNow = String(Math.round(fraction * 100));
    const shown = selected && cursorOf(selected) ? selected : row;
    $("place").textContent = shown ? `${cursorOf(shown)}  ${shown.data.time}` : "";
    drawHistogram();
  });
}

function watchRail() {
  const rail = $("rail");
  let timer = 0;
  let wanted = null;
  const follow = (event) => {
    const box = rail.getBoundingClientRect();
    const size = $("thumb").clientHeight;
    const fraction = Math.max(0, Math.min(1, (event.clientY - box.top - size / 2) / (box.height - size)));
    $("thumb").style.top = `${fraction * (box.height - size)}px`;
    wanted = placeAt(fraction);
    if (!wanted) return;
    tell(wanted.text);
    if (timer) return;
    timer = setTimeout(() => {
      timer = 0;
      show(wanted.place);
    }, 80);
  };
  rail.onpointerdown = (event) => {
    rail.setPointerCapture(event.pointerId);
    hold();
    follow(event);
  };
  rail.onpointermove = (event) => { if (rail.hasPointerCapture(event.pointerId)) follow(event); };
}

// --- streams ---

async function askStreams() {
  try {
    const answer = await ask("streams", "");
    streams = answer.streams;
    const names = streams.map((each) => each.stream);
    const unknown = search.streams.filter((each) => !names.includes(each)).map((stream) => ({ stream }));
    $("stream-list").replaceChildren(...[...streams, ...unknown].map(streamOf));
    if (answer.omitted) $("stream-list").append(`and ${answer.omitted.toLocaleString("en")} more`);
    drawStreams();
    drawPlace();
  } catch (error) {
    failed(error);
  }
}

function streamOf(stream) {
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.value = stream.stream;
  box.onchange = () => {
    const boxes = [...$("stream-list").querySelectorAll("input:checked")];
    go({ streams: boxes.map((each) => each.value) });
  };
  const name = document.createElement("span");
  name.append(stream.stream);
  const count = document.createElement("span");
  count.append(stream.error || (stream.records ?? 0).toLocaleString("en"));
  label.append(box, name, count);
  return label;
}

function drawStreams() {
  for (const box of $("stream-list").querySelectorAll("input")) box.checked = search.streams.includes(box.value);
  $("streams").firstElementChild.textContent = search.streams.join(", ") || "All streams";
  document.title = [search.streams.join(" "), search.where, search.text, "logengine"].filter(Boolean).join(" · ");
}

// --- what the page says ---

function tell(text) {
  $("status").textContent = text;
}

function mistake(error) {
  $("mistake").hidden = !error;
  $("mistake").textContent = error ? [error.message, error.expression].filter(Boolean).join("\n") : "";
  $("where").setAttribute("aria-invalid", String(Boolean(error?.expression)));
}

function failed(error) {
  if (error.name === "AbortError") return;
  if (error instanceof Refused) mistake(error);
  else tell(`The server does not answer: ${error.message}`);
}

let liveCount = 0;
function countLive(rows) {
  liveCount += rows.length;
}
setInterval(() => {
  if (liveCount && isLive) tell(`${liveCount.toLocaleString("en")} records/s`);
  else if (/records\/s$/.test($("status").textContent)) tell("");
  liveCount = 0;
}, 1000);

// --- keys ---

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
  g: () => { hold(); show({ direction: "after", time: "1970-01-01T00:00:00Z" }); },
  G: () => { setLive(true); go({ at: "" }, { isNew: false }); },
  Home: () => KEYS.g(),
  End: () => KEYS.G(),
  Enter: () => openRecord(),
  "/": () => $("where").focus(),
  " ": () => (isLive ? hold() : resume()),
  e: () => findError("after"),
  E: () => findError("before"),
  c: () => showContext(),
  y: () => copyLink(),
  w: () => log.classList.toggle("wrapped"),
  "?": () => $("help").showModal(),
  Escape: () => escape(),
};

function escape() {
  if ($("streams").open) $("streams").open = false;
  else if (!$("record").hidden) closeRecord();
  else if (view.isLoading || $("status").textContent.startsWith("Searching")) {
    // What is shown stays; only the search ends.
    view.stopped.abort();
    view.stopped = new AbortController();
    tell("Stopped.");
  } else if (search.since || search.until) go({ since: "", until: "" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const isField = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox";
  if (isField) {
    if (event.key === "Escape") log.focus();
    return;
  }
  if (/^(BUTTON|SUMMARY)$/.test(event.target.tagName) && (event.key === " " || event.key === "Enter")) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

// --- start ---

$("controls").onsubmit = (event) => {
  event.preventDefault();
  go(Object.fromEntries(FIELDS.map((name) => [name, $(name).value.trim()])));
  log.focus();
};
$("level").onchange = () => go({ level: $("level").value });
$("live").onclick = () => (isLive ? hold() : resume());
$("newer").onclick = () => resume();
$("help-open").onclick = () => $("help").showModal();
$("record-close").onclick = closeRecord;
$("record-context").onclick = showContext;
$("record-link").onclick = copyLink;
document.addEventListener("click", (event) => {
  if (!$("streams").contains(event.target)) $("streams").open = false;
});
let lastTop = 0;
log.addEventListener("scroll", () => {
  if (log.scrollTop < lastTop - 2 && !isScrolledDown()) hold(true);
  else if (isHeldByScrolling && view.isAtEnd && isScrolledDown()) resume();
  lastTop = log.scrollTop;
  fill(view);
  drawPlace();
}, { passive: true });
addEventListener("popstate", () => {
  readAddress();
  show();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawHistogram());
setInterval(askStreams, 30000);
watchHistogram();
watchRail();
readAddress();
if (search.at || search.until) setLive(false);
askStreams();
show();
log.focus();
