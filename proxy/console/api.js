// What the page asks of this proxy, and of nobody else.

/** What went wrong. `status` 0: nobody answered. `after`: seconds until another try is worth it, if that was said. */
export class Problem extends Error {
  constructor({ status, message, code = null, type = null, param = null, after = null }) {
    super(message);
    Object.assign(this, { status, code, type, param, after });
  }
}

/** A whole answer, decoded. Raises Problem; an abort is passed on. */
export async function fetchJson(path, { key = "", signal = undefined } = {}) {
  const response = await call(path, { headers: shown(key), signal });
  try {
    return await response.json();
  } catch (error) {
    throw signal?.aborted ? error : unreachable();
  }
}

/** POST; the answer's head has come. Raises Problem; an abort is passed on. */
export function post(path, body, { key = "", signal, headers = {} }) {
  const said = { "content-type": "application/json", ...shown(key), ...headers };
  return call(path, { method: "POST", headers: said, body: JSON.stringify(body), signal });
}

// No `cache` mode is named: with some of them the browser adds a `Cache-Control: no-cache` of its own, and this proxy
// obeys it.
async function call(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "omit", redirect: "error", ...options });
  } catch (error) {
    throw options.signal?.aborted ? error : unreachable();
  }
  if (!response.ok) throw await problem(response);
  return response;
}

function shown(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}

function unreachable() {
  return new Problem({ status: 0, code: "unreachable", message: `Nobody answers at ${location.origin}.` });
}

async function problem(response) {
  const text = await response.text().catch(() => "");
  const after = Number.parseFloat(response.headers.get("retry-after") ?? "");
  const told = { status: response.status, after: Number.isFinite(after) ? after : null };
  return new Problem({ ...told, ...said(text, response) });
}

function said(text, response) {
  try {
    return shaped(JSON.parse(text).error);
  } catch {
    return { message: text.slice(0, 300) || response.statusText || `HTTP status ${response.status}` };
  }
}

/** The members of an error that are words: a provider may have put anything in their places. */
function shaped({ message, type, param, code }) {
  return { message: word(message) ?? "No reason was given.", type: word(type), param: word(param), code: word(code) };
}

function word(value) {
  return typeof value === "string" || typeof value === "number" ? String(value) : null;
}

/** The same of an `error` event in a stream that had begun; `text` is its data. */
export function broken(text) {
  try {
    return new Problem({ status: 200, ...shaped(JSON.parse(text).error) });
  } catch {
    return new Problem({ status: 200, message: text.slice(0, 300) });
  }
}

/** The connection ended before the answer did. */
export function cut() {
  return new Problem({ status: 200, code: "lost", message: "The connection was cut before the answer was whole." });
}
