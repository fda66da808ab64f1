/* Jobs that run or wait. The list is polled; the first few are also followed by their events,
   which bring every step and the previews. Not all of them: a browser opens six connections to
   a server, and one must stay free for everything else. */
import * as api from "./api.js";
import { announce, byId, duration, element, setText, words } from "./dom.js";

const FOLLOWED = 3;
const SHOWN = 50;

const cards = new Map();   /* id → card, in the order shown */
const streams = new Map(); /* id → AbortController */
const done = new Set();    /* ids that events saw ending: a poll under way may still list them */
let onEnd = () => {};

/* ended(job or null): a job has left the queue. */
export function start(ended) {
  onEnd = ended;
}

export const isEmpty = () => cards.size === 0;

/* --- a card --- */

function statusText(job) {
  if (job.status === "queued") {
    return job.queue_position > 0 ? `Waiting, ${job.queue_position} before it` : "Next in line";
  }
  const parts = [job.stage ? words(job.stage) : job.progress > 0 ? `${job.progress} %` : "Starting"];
  if (job.steps > 0) parts.push(`step ${job.step} of ${job.steps}`);
  return parts.join(", ");
}

function timeText(job) {
  if (typeof job.eta_s !== "number") return "";
  const time = duration(job.eta_s);
  return job.status === "queued" ? `done in about ${time}` : `${time} left`;
}

/* Quarters only: a voice that tells every step helps nobody. */
function announceQuarter(card, job) {
  const quarter = Math.floor(job.progress / 25);
  if (job.status === "in_progress" && quarter > card.quarter && quarter < 4) {
    announce(`${quarter * 25} percent: ${job.prompt}`);
  }
  card.quarter = quarter;
}

/* The button is not disabled meanwhile: that would take the focus from it. */
async function cancel(card) {
  if (card.cancelling) return;
  card.cancelling = true;
  setText(card.status, "Cancelling");
  try {
    await api.post(`${api.jobPath(card.job)}/cancel`);
    onEnd(null);
  } catch (error) {
    setText(card.error, error.message);
    card.cancelling = false;
  }
}

function makeCard(job) {
  const card = { job, quarter: 0 };
  card.preview = element("img", { alt: "", hidden: true });
  card.bar = element("progress", { max: 100, value: 0, "aria-label": `Progress of ${job.prompt}` });
  card.status = element("span", { class: "status" });
  card.time = element("span", { class: "time" });
  card.error = element("p", { class: "error", role: "alert" });
  card.cancel = element("button", { type: "button", class: "small cancel",
    "aria-label": `Cancel ${job.prompt}`, onclick: () => cancel(card) }, "Cancel");
  card.node = element("li", { class: "card", "data-job": job.id },
    element("div", { class: "preview" }, card.preview),
    element("div", { class: "card-body" },
      element("div", { class: "card-head" }, element("p", {}, job.prompt || ""), card.cancel),
      card.bar, element("p", { class: "card-line" }, card.status, card.time), card.error));
  return card;
}

function updateCard(card, job) {
  card.job = { ...card.job, ...job };
  card.node.dataset.status = card.job.status;
  card.bar.value = card.job.progress || 0;
  setText(card.time, timeText(card.job));
  if (!card.cancelling) setText(card.status, statusText(card.job));
  announceQuarter(card, card.job);
}

function showPreview(card, preview) {
  if (typeof preview.image !== "string" || !preview.image.startsWith("data:image/")) return;
  card.preview.src = preview.image;
  card.preview.hidden = false;
}

/* --- the list --- */

function addCard(job) {
  const card = makeCard(job);
  cards.set(job.id, card);
  updateCard(card, job);
  return card;
}

/* The focus must not fall out of the page with the card it was in. */
function dropCard(id) {
  const { node } = cards.get(id);
  const focused = node.contains(document.activeElement);
  node.remove();
  cards.delete(id);
  streams.get(id)?.abort();
  byId("queue-section").hidden = cards.size === 0;
  if (focused) (byId("queue").querySelector(".cancel") || byId("gallery-title")).focus();
}

/* Running ones first, then as they will run. */
function inOrder(jobs) {
  const rank = (job) => (job.status === "in_progress" ? -1 : job.queue_position ?? Infinity);
  return [...jobs].sort((a, b) => rank(a) - rank(b) || a.created_at - b.created_at);
}

function arrange(jobs) {
  const list = byId("queue");
  inOrder(jobs).forEach((job, place) => {
    const { node } = cards.get(job.id);
    if (list.children[place] !== node) list.insertBefore(node, list.children[place] || null);
  });
  byId("queue-section").hidden = cards.size === 0;
}

/* What the poll says of a running job that is followed is older than its events. */
function take(job) {
  if (done.has(job.id)) return;
  const card = cards.get(job.id) || addCard(job);
  const followed = streams.has(job.id) && card.job.status === "in_progress";
  if (!followed) updateCard(card, job);
}

/* Resolves to whether a job has left. */
export async function refresh() {
  const known = new Set(cards.keys()); /* a job submitted meanwhile is not in the reply */
  const reply = await api.get(`v1/jobs?unfinished=true&order=asc&limit=${SHOWN}`);
  const there = new Set(reply.data.map((job) => job.id));
  reply.data.forEach(take);
  const gone = [...cards.keys()].filter((id) => known.has(id) && !there.has(id));
  gone.forEach(dropCard);
  arrange([...cards.values()].map((card) => card.job));
  follow();
  return gone.length > 0;
}

/* A job that was just accepted. */
export function add(job) {
  if (!cards.has(job.id)) addCard(job);
  arrange([...cards.values()].map((card) => card.job));
  follow();
}

/* --- events --- */

function onEvent(id, event) {
  const card = cards.get(id);
  if (!card) return;
  if (event.name === "progress") updateCard(card, event.data);
  if (event.name === "preview") showPreview(card, event.data);
  if (event.name === "done") {
    done.add(id);
    dropCard(id);
    onEnd(event.data);
  }
}

async function followOne(id) {
  const control = new AbortController();
  streams.set(id, control);
  try {
    const path = `${api.jobPath(cards.get(id).job)}/events`;
    for await (const event of api.events(path, control.signal)) {
      onEvent(id, event);
    }
  } catch {
    /* Lost or ended: the next poll tells what became of the job and follows it again. */
  } finally {
    if (streams.get(id) === control) streams.delete(id);
  }
}

/* Also called when the page comes to the front or goes behind. */
export function follow() {
  const jobs = inOrder([...cards.values()].map((card) => card.job));
  const wanted = document.hidden ? [] : jobs.slice(0, FOLLOWED).map((job) => job.id);
  for (const [id, control] of streams) {
    if (!wanted.includes(id)) control.abort();
  }
  for (const id of wanted) {
    if (!streams.has(id)) followOne(id);
  }
}
