/* Making elements and words. Whatever comes from the server becomes text nodes or values, never
   markup. */

/* element("button", {class: "small", onclick: f}, "Cancel"): attributes that are null or false
   are left out, as are such children. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      node.addEventListener(name.slice(2), value);
    } else if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.filter((child) => child !== null && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);

/* Assigning equal text again would make screen readers repeat it. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function announce(text) {
  setText(byId("announce"), text);
}

const LABELS = { num_inference_steps: "Steps", guidance_scale: "Guidance", num_frames: "Frames",
  n: "How many", fps: "Frames per second", timeout_s: "Time limit", vae_tile_size: "Tile size" };

/* "text_encoding" → "Text encoding" */
export function words(name) {
  const text = String(name).replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export const label = (name) => LABELS[name] || words(name);

export function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
}

export function dateTime(unix) {
  const style = { dateStyle: "medium", timeStyle: "short" };
  return new Date(unix * 1000).toLocaleString(undefined, style);
}
