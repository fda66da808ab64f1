/* Jobs that have ended, newest first. */
import * as api from "./api.js";
import { byId, element, words } from "./dom.js";
import * as viewer from "./viewer.js";

const PAGE = 24;
const MOST = 100; /* jobs in one reply */

let jobs = [];
let tiles = new Map(); /* id → {node, url} */

/* --- a tile --- */

async function showThumbnail(tile, image, job) {
  try {
    tile.url = await api.media(api.contentPath(job, 0, "thumbnail"));
    image.src = tile.url;
  } catch {
    image.hidden = true; /* the prompt stays to be seen */
  }
}

function thumbnail(tile, job) {
  const onerror = () => { image.hidden = true; };
  const image = element("img", { alt: "", loading: "lazy", onerror });
  showThumbnail(tile, image, job);
  return image;
}

function badge(job) {
  if (job.outputs?.length > 1) return `${job.outputs.length} ×`;
  return job.object === "video" ? "▶" : null;
}

function reason(job) {
  return job.error?.message || words(job.status);
}

function makeTile(job) {
  const tile = { url: null };
  const sound = job.status === "completed";
  const mark = sound ? badge(job) : null;
  const label = `${job.object === "video" ? "Video" : "Picture"}: ${job.prompt}`;
  const button = element("button", { type: "button", class: `tile ${job.status}`,
    "aria-label": sound ? label : `${label}. ${words(job.status)}`,
    title: job.prompt, onclick: () => viewer.open(job) },
  element("span", { class: "tile-text" }, sound ? job.prompt : element("b", {}, words(job.status)),
    sound || job.status === "cancelled" ? null : element("span", {}, reason(job))),
  sound ? thumbnail(tile, job) : null,
  mark ? element("span", { class: "badge", "aria-hidden": "true" }, mark) : null);
  tile.node = element("li", { "data-job": job.id, "data-status": job.status }, button);
  return tile;
}

function dropTile(id) {
  const { node, url } = tiles.get(id);
  node.remove();
  api.release(url);
  tiles.delete(id);
}

/* --- the list --- */

/* Keeps the tiles that stay: their pictures are not loaded again. */
function show(next, more) {
  jobs = next;
  const kept = new Set(jobs.map((job) => job.id));
  for (const id of [...tiles.keys()]) {
    if (!kept.has(id)) dropTile(id);
  }
  const list = byId("gallery");
  jobs.forEach((job, place) => {
    if (!tiles.has(job.id)) tiles.set(job.id, makeTile(job));
    const { node } = tiles.get(job.id);
    if (list.children[place] !== node) list.insertBefore(node, list.children[place] || null);
  });
  byId("gallery-empty").hidden = jobs.length > 0;
  byId("show-more").hidden = !more;
}

function page(limit, after) {
  const from = after ? `&after=${encodeURIComponent(after)}` : "";
  return api.get(`v1/jobs?unfinished=false&order=desc&limit=${limit}${from}`);
}

/* As many as are shown are read anew; those beyond one reply stay as they are. */
export async function refresh() {
  const reply = await page(Math.min(MOST, Math.max(PAGE, jobs.length)));
  const last = jobs.findIndex((job) => job.id === reply.last_id);
  const rest = last >= 0 && reply.has_more ? jobs.slice(last + 1) : [];
  const fresh = new Set(reply.data.map((job) => job.id));
  const beyond = rest.filter((job) => !fresh.has(job.id));
  show([...reply.data, ...beyond], beyond.length > 0 ? !byId("show-more").hidden : reply.has_more);
}

async function showMore() {
  const button = byId("show-more");
  const count = jobs.length;
  button.disabled = true;
  try {
    const reply = await page(PAGE, jobs[count - 1].id);
    const known = new Set(jobs.map((job) => job.id));
    show([...jobs, ...reply.data.filter((job) => !known.has(job.id))], reply.has_more);
    byId("gallery").children[count]?.firstChild.focus();
  } finally {
    button.disabled = false;
  }
}

/* The job `by` places after this one that can be shown, or undefined. */
export function neighbour(job, by) {
  const place = jobs.findIndex((other) => other.id === job.id);
  return place < 0 ? undefined : jobs[place + by];
}

export function forget(job) {
  const next = neighbour(job, 1) || neighbour(job, -1);
  show(jobs.filter((other) => other.id !== job.id), !byId("show-more").hidden);
  const target = next ? tiles.get(next.id).node.firstChild : byId("gallery-title");
  target.focus();
}

export function start(onError) {
  byId("show-more").addEventListener("click", () => { showMore().catch(onError); });
}
