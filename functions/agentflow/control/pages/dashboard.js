// The dashboard: what the API says of one tenant, and nothing else. One file, no library, no build.
//
// Every page is a function that gives elements; text comes from elsewhere and is only ever text, never markup. Nothing
// polls: a run that goes on is followed by its event stream, the rest is read when it is opened.

const KEY = "agentflow-key"; // for as long as the tab is open
const page = document.getElementById("page");
let following = new AbortController(); // ends with the page it is for

class Refused extends Error {
  constructor(status, problem) {
    super(`${problem.detail || problem.title || `HTTP ${status}`}${problem.mend ? ` (${problem.mend})` : ""}`);
    this.status = status;
    this.faults = problem.errors || [];
  }
}

async function ask(path, { method = "GET", body, signal } = {}) {
  const headers = { authorization: `Bearer ${sessionStorage.getItem(KEY) || ""}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

const read = async (path, more) => (await ask(path, more)).json();

// -- elements ----------------------------------------------------------------------------------------------------

function h(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const number = (text) => h("span", { class: "number" }, text);
const dollars = (micro) => (micro === null || micro === undefined ? "" : `$${(micro / 1e6).toFixed(6)}`);
const count = (n) => (n === null || n === undefined ? "" : n.toLocaleString("en"));
const when = (at) => (at ? h("time", { datetime: at, title: at }, new Date(at).toLocaleString()) : "");
const took = (from, to) => (from && to ? `${((new Date(to) - new Date(from)) / 1000).toFixed(2)} s` : "");
const status = (name) => h("span", { class: `status ${name}` }, name);
const json = (value) => h("pre", {}, JSON.stringify(value, null, 2));
const link = (run) => h("a", { href: `#/runs/${run}` }, h("code", { title: run }, `${run.slice(0, 8)}…${run.slice(-4)}`));

function table(titles, rows, none) {
  if (!rows.length) return h("p", { class: "muted" }, none);
  const aligned = (value) => (value instanceof Element && value.className === "number" ? { class: "number" } : {});
  const cell = (value) => h("td", aligned(value), value ?? "");
  const head = h("thead", {}, h("tr", {}, titles.map((title, column) => h("th", { scope: "col", ...aligned(rows[0][column]) }, title))));
  return h("div", { class: "scroll" }, h("table", {}, head, h("tbody", {}, rows.map((row) => h("tr", {}, row.map(cell))))));
}

function fault(error) {
  const mends = (error.faults || []).map((each) => h("li", {}, h("code", {}, each.path || ""), ` ${each.message}${each.mend ? ` (${each.mend})` : ""}`));
  return h("div", { class: "fault", role: "alert" }, error.message, mends.length ? h("ul", {}, mends) : null);
}

// A list in pages: more of it comes when it is asked for.
async function paged(path, titles, row, none) {
  const first = await read(path);
  const rows = first.items.map(row);
  const list = h("div", {}, table(titles, rows, none));
  let next = first.next;
  const more = h("button", { type: "button", onclick: act(async () => {
    const found = await read(`${path}${path.includes("?") ? "&" : "?"}cursor=${encodeURIComponent(next)}`);
    rows.push(...found.items.map(row));
    list.replaceChildren(table(titles, rows, none));
    next = found.next;
    more.hidden = !next;
  }) }, "More");
  more.hidden = !next;
  return [list, h("p", {}, more)];
}

// What a button does; what it is refused is said at the top.
const act = (does) => async (event) => {
  event.preventDefault();
  const button = event.submitter || event.currentTarget;
  button.disabled = true;
  try {
    await does(event);
  } catch (error) {
    page.prepend(fault(error));
  } finally {
    button.disabled = false;
  }
};

function choice(name, label, values, chosen) {
  const options = values.map((value) => h("option", { value, selected: value === chosen }, value || "all"));
  return h("label", {}, label, h("select", { name }, options));
}

// A form whose values are in the page's address, so that it can be sent to others.
function filters(path, ...fields) {
  const change = (event) => {
    event.preventDefault();
    const given = [...new FormData(event.currentTarget)].filter(([, value]) => value);
    location.hash = `${path}?${new URLSearchParams(given)}`;
  };
  return h("form", { onsubmit: change, onchange: change }, fields);
}

// -- pages -------------------------------------------------------------------------------------------------------

const STATUSES = ["", "requested", "planned", "running", "paused", "succeeded", "failed", "cancelled"];

async function runs(query) {
  const asked = new URLSearchParams(query);
  asked.set("limit", "50");
  const row = (run) => [link(run.id), `${run.workflow}${run.version ? `@${run.version}` : ""}`, status(run.status), when(run.created_at),
    number(took(run.created_at, run.finished_at)), number(count(run.steps)), number(count(run.tokens)), number(dollars(run.spent_micro))];
  return [
    h("h1", {}, "Runs"),
    filters("/runs", choice("status", "Status", STATUSES, query.get("status") || ""),
      h("label", {}, "Workflow", h("input", { name: "workflow", value: query.get("workflow") || "", placeholder: "all" }))),
    await paged(`/v1/runs?${asked}`, ["run", "workflow", "status", "started", "took", "steps", "tokens", "cost"], row, "There are no runs."),
  ];
}

async function run(query, id) {
  const path = `/v1/runs/${encodeURIComponent(id)}`;
  const shown = h("div", {});
  const plan = h("div", {});
  let mayDraw = 0; // drawing takes as long as the history: a fraction of the time is enough for it
  const show = async () => {
    const [found, steps] = await Promise.all([read(path), everyStep(path)]);
    shown.replaceChildren(...details(found, steps, plan, path, show));
    if (found.version && (found.finished_at || performance.now() >= mayDraw)) {
      const began = performance.now();
      mayDraw = Infinity;
      await picture(plan, `${path}/graph`);
      mayDraw = performance.now() + 500 + 10 * (performance.now() - began);
    }
    return found;
  };
  const found = await show();
  if (!found.finished_at) follow(path, show).catch((error) => error.name === "AbortError" || page.prepend(fault(error)));
  return [shown];
}

// A picture is an image, in which nothing runs; where there is none, it is said why.
async function picture(place, path) {
  try {
    const drawn = await (await ask(path)).text();
    const source = `data:image/svg+xml,${encodeURIComponent(drawn)}`;
    place.replaceChildren(h("div", { class: "scroll" }, h("img", { class: "plan", src: source, alt: "The plan as a picture" })));
  } catch (error) {
    place.replaceChildren(fault(error));
  }
}

async function everyStep(path) {
  const steps = [];
  for (let next = ""; next !== null; ) {
    const found = await read(`${path}/steps?limit=100${next && `&cursor=${encodeURIComponent(next)}`}`);
    steps.push(...found.items);
    next = steps.length < 1000 ? found.next : null;
  }
  return steps;
}

function details(run, steps, plan, path, show) {
  const steer = (verb) => h("button", { type: "button", onclick: act(async () => {
    await ask(`${path}/${verb}`, { method: "POST", body: { reason: "by the dashboard" } });
    await show();
  }) }, verb);
  const verbs = run.finished_at ? [] : [run.status === "paused" ? "resume" : "pause", "cancel"];
  const facts = [
    ["status", status(run.status)], ["started", when(run.created_at)], ["took", took(run.created_at, run.finished_at) || "goes on"],
    ["cost", `${dollars(run.spent_micro)} of ${dollars(run.limit_micro)}${run.held_micro ? `, ${dollars(run.held_micro)} held` : ""}`],
    ["tokens", count(run.tokens)], ["budget", run.budget], ["parent", run.parent && link(run.parent.run)],
    ["forked from", run.forked_from && link(run.forked_from.run)], ["run", h("code", {}, run.id)],
  ];
  const row = (step) => [number(`${step.step}${step.attempt > 1 ? `.${step.attempt}` : ""}`), step.task, step.kind, status(step.status), when(step.requested_at),
    number(took(step.requested_at, step.completed_at)), number(dollars(step.cost_micro)), what(step)];
  return [
    h("h1", {}, run.version ? workflowLink(run.workflow, run.version) : run.workflow),
    verbs.length ? h("div", { class: "actions" }, verbs.map(steer)) : null,
    run.error ? fault({ message: `${run.error.code}: ${run.error.message}${run.error.path ? ` (${run.error.path})` : ""}` }) : null,
    h("dl", {}, facts.filter(([, value]) => value).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    plan, h("h2", {}, "Steps"), table(["step", "task", "kind", "status", "asked", "took", "cost", ""], steps.map(row), "None has ended yet."),
    run.output ? h("h2", {}, "Output") : null, run.output ? json(run.output) : null,
    h("h2", {}, "Input"), json(run.input),
  ].filter((each) => each !== null);
}

function what(step) {
  const said = { input: step.input, ...(step.error ? { error: step.error } : { output: step.output }), ...(step.usage ? { usage: step.usage } : {}) };
  const summary = step.error ? `${step.error.code}: ${step.error.message}` : "what it was given and has given";
  return h("details", {}, h("summary", {}, summary), step.child ? link(step.child) : null, json(said));
}

// Show a run anew as its event stream says that something has happened, a few times a second at most.
async function follow(path, show) {
  const { signal } = following;
  let last = "";
  while (!signal.aborted) {
    const headers = { authorization: `Bearer ${sessionStorage.getItem(KEY)}`, accept: "text/event-stream", ...(last && { "last-event-id": last }) };
    const answer = await fetch(`${path}/events`, { headers, signal });
    if (!answer.ok || answer.status === 204) return;
    const stream = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = "", due = null; ; ) {
      const { done, value } = await stream.read();
      if (done) break;
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) last = /^id: (.*)$/m.exec(event)?.[1] ?? last;
      due ??= setTimeout(() => { due = null; if (!signal.aborted) show().catch(() => {}); }, 250);
    }
    if (last === "end") return;
    await new Promise((go) => setTimeout(go, 1000)); // as EventSource does
  }
}

const workflowLink = (name, version) => h("a", { href: `#/workflows/${name}?version=${version}` }, `${name}@${version}`);

async function workflows() {
  const row = (each) => [workflowLink(each.name, each.version), h("code", {}, each.hash.slice(0, 12)), when(each.created_at)];
  return [h("h1", {}, "Workflows"), await paged("/v1/workflows?limit=50", ["workflow", "hash", "registered"], row, "None is registered.")];
}

async function workflow(query, name) {
  const path = `/v1/workflows/${encodeURIComponent(name)}`;
  const found = await read(`${path}?${query}`);
  const plan = h("div", {});
  await picture(plan, `${path}/graph?version=${found.version}`);
  return [
    h("h1", {}, `${found.name}@${found.version}`),
    h("p", {}, h("a", { href: `#/runs?workflow=${found.name}` }, "Its runs"), " · ", h("a", { href: "#/costs?by=workflow" }, "What they cost")),
    plan, h("h2", {}, "Document"), json(found.document),
  ];
}

async function tasks() {
  const row = (task) => {
    const path = `/v1/runs/${task.run}/steps/${task.step}/answer`;
    const answer = act(async (event) => {
      const text = new FormData(event.target).get("result");
      await ask(path, { method: "POST", body: { result: text ? JSON.parse(text) : {} } });
      await route();
    });
    const form = h("form", { onsubmit: answer }, h("textarea", { name: "result", "aria-label": "Answer, as JSON", placeholder: `JSON: ${JSON.stringify(task.out || {})}` }), h("button", {}, "Answer"));
    return [link(task.run), `${task.workflow}@${task.version}`, `${task.task} (${task.use})`, when(task.asked_at), when(task.due_at), json(task.input), form];
  };
  return [h("h1", {}, "Waiting for people"), await paged("/v1/tasks?limit=50", ["run", "workflow", "task", "asked", "due", "given", "answer"], row, "Nobody is waited for.")];
}

const BY = ["workflow", "tenant", "agent", "model", "tool", "step", "budget"];

async function costs(query) {
  const by = query.get("by") || "workflow";
  const period = query.get("period") || "day";
  const asked = new URLSearchParams({ by, period, limit: 100 });
  const name = (item) => [item.workflow, item.task, item.agent, item.provider, item.model, item.tool, item.budget].filter(Boolean).join(" / ") || "all";
  const row = (item) => [item.starts_on.slice(0, period === "month" ? 7 : 10), name(item), number(dollars(item.cost_micro)), number(count(item.calls)), number(count(item.input_tokens)),
    number(count(item.output_tokens)), number(count(item.runs)), number(dollars(item.run_mean_micro))];
  return [
    h("h1", {}, "Costs"),
    filters("/costs", choice("by", "By", BY, by), choice("period", "Period", ["day", "month", "total"], period)),
    await paged(`/v1/costs?${asked}`, ["from", by, "cost", "calls", "tokens in", "out", "runs", "a run"], row, "Nothing was spent."),
  ];
}

async function budgets() {
  const row = (each) => {
    const taken = each.spent_micro + each.held_micro;
    const bar = each.limit_micro === null ? "counted only" : h("progress", { max: Math.max(each.limit_micro, 1), value: Math.min(taken, each.limit_micro || 1), "aria-label": "spent and held" });
    return [each.scope, each.period, bar, number(dollars(each.limit_micro)), number(dollars(each.spent_micro)), number(dollars(each.held_micro)),
      number(dollars(each.remaining_micro)), when(each.resets_at), each.frozen ? h("span", { class: "status failed" }, "frozen") : ""];
  };
  return [h("h1", {}, "Budgets"), await paged("/v1/budgets", ["scope", "period", "", "limit", "spent", "held", "remaining", "resets", ""], row, "There are no budgets.")];
}

async function parked() {
  const row = (each) => {
    const retry = h("button", { type: "button", onclick: act(async () => {
      await ask(`/v1/parked/${each.id}/retry`, { method: "POST" });
      await route();
    }) }, "Retry");
    return [when(each.parked_at), each.consumer, h("code", {}, each.subject), each.reason, number(count(each.tries)), retry];
  };
  return [h("h1", {}, "Parked: messages that could not be handled"), await paged("/v1/parked?limit=50", ["parked", "by", "subject", "why", "tries", ""], row, "Nothing is parked.")];
}

function keyForm(error) {
  const take = (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, new FormData(event.target).get("key").trim());
    route();
  };
  return [
    h("h1", {}, "Your API key"), error ? fault(error) : null,
    h("form", { onsubmit: take }, h("label", {}, "Key", h("input", { name: "key", type: "password", autocomplete: "off", required: true, size: 60 })), h("button", {}, "Open")),
    h("p", { class: "muted" }, "It stays in this tab until the tab is closed. `agentflow dev` keeps its own in .agentflow/api_key."),
  ].filter((each) => each !== null);
}

// -- which page --------------------------------------------------------------------------------------------------

const PAGES = { runs, workflows, tasks, costs, budgets, parked };
const ONE = { runs: run, workflows: workflow }; // of a list

async function route() {
  following.abort();
  const mine = (following = new AbortController());
  const [path, query = ""] = location.hash.slice(1).split("?");
  const [, name = "runs", ...rest] = path.split("/");
  for (const each of document.querySelectorAll("nav a")) {
    if (each.hash === `#/${name}`) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
  const known = sessionStorage.getItem(KEY);
  document.getElementById("leave").hidden = !known;
  let shown;
  try {
    const chosen = (rest.length && ONE[name]) || PAGES[name] || runs;
    shown = known ? (await chosen(new URLSearchParams(query), ...rest)).flat() : keyForm();
  } catch (error) {
    shown = error.status === 401 ? keyForm(error) : [fault(error)];
  }
  if (mine === following) page.replaceChildren(...shown); // else another page was asked for meanwhile
}

document.getElementById("leave").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  route();
});

// `agentflow dev` prints an address with its key behind the #, which browsers send to nobody.
const given = new URLSearchParams(location.hash.slice(1));
if (given.has("key")) {
  sessionStorage.setItem(KEY, given.get("key"));
  history.replaceState(null, "", `#${given.get("page") || "/runs"}`);
}
addEventListener("hashchange", route);
route();
