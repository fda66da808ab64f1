/* Talking to the server. Every request carries the API key when there is one; paths are relative,
   so that the page works below a prefix too. */

/* What the server refused; `param` names the field, when it knows one. */
export class ApiError extends Error {
  constructor(status, error) {
    super(error.message || `The server answered ${status}.`);
    this.status = status;
    this.told = Boolean(error.message);
    this.param = error.param || null;
    this.code = error.code || null;
  }
}

/* No answer at all: the server is away, or the network. */
export class Unreachable extends Error {}

const KEY = "darkroom-key";
let key = sessionStorage.getItem(KEY);
let asking = null;    /* the open question for a key: all who need one wait for the same */
let declined = false; /* the user closed it: not asked again until they want to */
let ask = async () => null;

/* question(rejected) resolves to a key, or null when the user has none. */
export function onKeyNeeded(question) {
  ask = question;
}

export function askAgain() {
  declined = false;
}

async function newKey(rejected) {
  if (declined) return false;
  asking ??= ask(rejected).finally(() => { asking = null; });
  const answer = await asking;
  declined = answer === null;
  if (declined) return false;
  key = answer;
  sessionStorage.setItem(KEY, key);
  return true;
}

async function failure(response) {
  try {
    return new ApiError(response.status, (await response.json()).error || {});
  } catch {
    return new ApiError(response.status, {});
  }
}

async function send(path, options) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  try {
    return await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("The server cannot be reached.");
  }
}

/* The response of a success. A 401 asks for a key and tries again. */
async function request(path, options = {}) {
  for (;;) {
    const used = key;
    const response = await send(path, options);
    if (response.ok) return response;
    const known = key !== used; /* another request got a new key meanwhile */
    if (response.status !== 401 || !(known || (await newKey(used !== null)))) {
      throw await failure(response);
    }
  }
}

export async function get(path) {
  return (await request(path)).json();
}

/* body: FormData is sent as it is, anything else as JSON. */
export async function post(path, body) {
  const form = body instanceof FormData;
  const options = {
    method: "POST",
    headers: form ? {} : { "Content-Type": "application/json" },
    body: form ? body : JSON.stringify(body ?? {}),
  };
  return (await request(path, options)).json();
}

export const jobPath = (job) => `v1/${job.object}s/${encodeURIComponent(job.id)}`;

export async function remove(job) {
  await request(jobPath(job), { method: "DELETE" });
}

export function contentPath(job, index, variant) {
  return `${jobPath(job)}/content?index=${index}&variant=${variant || job.object}`;
}

export async function blob(path) {
  return (await request(path)).blob();
}

/* A URL for src and href. Elements cannot send the key, so with one the bytes are fetched here;
   without, the browser itself streams and caches. Give it to release() when it is not shown any
   more. */
export async function media(path) {
  if (!key) return path;
  return URL.createObjectURL(await blob(path));
}

export function release(url) {
  if (url && url.startsWith("blob:")) URL.revokeObjectURL(url);
}

function parseEvent(block) {
  const event = { name: "message", data: "" };
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (field === "event") event.name = value;
    if (field === "data") event.data += value;
  }
  return event;
}

/* Server-sent events until the stream ends: EventSource cannot send the key. */
export async function* events(path, signal) {
  const response = await request(path, { headers: { Accept: "text/event-stream" }, signal });
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const blocks = text.split(/\r?\n\r?\n/);
    text = blocks.pop();
    for (const event of blocks.map(parseEvent)) {
      if (event.data) yield { name: event.name, data: JSON.parse(event.data) };
    }
  }
}
