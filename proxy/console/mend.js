// What went wrong, in the reader's words, and how to mend it.

import { duration, money, named } from "./words.js";

// By code. {after}: when it is worth another try; {of}: what stands in the settings.
const CODES = named({
  unreachable: [
    "The proxy does not answer",
    "Is it still running? “penstock serve” starts it. Then try again: nothing on this page is lost.",
  ],
  no_key: [
    "A key is needed",
    "Enter a key of this proxy above. Whoever runs it makes one with “penstock keys create”.",
  ],
  model_not_allowed: [
    "This key may not call this model",
    "Choose another one from the list: it holds what the key may call.",
  ],
  model_not_priced: [
    "Nobody knows what this model costs",
    "A key with a budget may only call models with a price. Set “price” for it in [models].",
  ],
  insufficient_quota: [
    "Nothing is left at the provider",
    "The provider says that the account of its key has no credit. Choose another model, or top the account up.",
  ],
  rate_limit_exceeded: [
    "Too much at once",
    "The limit of this key, or of the provider, is reached. Try again {after}.",
  ],
  request_over_limit: [
    "Larger than the limit",
    "This request alone is over the key's tokens a minute. Shorten it, or lower the maximum.",
  ],
  queue_timeout: ["The provider's turn did not come", "More is asked than its limits allow. Try again {after}."],
  no_model_fits: [
    "No model of this route can answer this",
    "Lower the maximum of tokens, shorten the conversation, or choose another model.",
  ],
  upstream_auth_error: [
    "The provider refused the proxy's own key",
    "Whoever runs this proxy must mend it: “api_key_env” of the provider names the variable that holds the key.",
  ],
  upstream_connect_error: [
    "The provider cannot be reached",
    "Is it running, and is “base_url” in [providers] right? What was asked before still comes out of the cache.",
  ],
  upstream_tls_error: [
    "The provider's certificate is not good",
    "“base_url” in [providers] may name the wrong host, or the certificate has expired.",
  ],
  upstream_unavailable: [
    "The provider is down",
    "It failed too often just now and is left alone for a while. Try again {after}.",
  ],
  upstream_timeout: [
    "The provider did not answer in time",
    "Try again, or choose another model. The request may have been paid for.",
  ],
  upstream_stall: [
    "The provider fell silent",
    "Its answer began and did not go on. Try again, or choose another model.",
  ],
  upstream_reset: ["The provider hung up", "The answer was lost on its way and is not kept. Try again."],
  upstream_truncated: ["The answer broke off", "The provider ended it too early; it is not kept. Try again."],
  upstream_bad_content_type: [
    "That was no answer of a model",
    "“base_url” in [providers] may lead to a web page; most providers' ends in /v1.",
  ],
  ledger_unavailable: [
    "The ledger cannot be written",
    "Without it no budget can be kept. The proxy's log says why; often the disk is full.",
  ],
  overloaded: ["Too much is under way", "The proxy or the provider is at its limit just now. Try again {after}."],
  shutting_down: ["The proxy is shutting down", "Try again once it has started anew."],
  not_cached: ["Not in the cache", "Only kept answers were asked for."],
  lost: ["The answer broke off", "The connection ended before the answer was whole; it is not kept. Try again."],
});

const STATUSES = named({
  200: ["The answer broke off with an error", "It is not kept. Try again, or choose another model."],
  400: ["The request makes no sense", "See what the proxy says, change it and send it again."],
  402: ["The provider wants to be paid", "Its account has no credit left."],
  403: ["That is not allowed", "See what the proxy says."],
  404: ["There is no such model", "Choose one from the list. A provider may also call it by another name."],
  408: ["The request came too slowly", "Try again."],
  413: ["Too long", "Shorten the conversation, or start over."],
  429: ["Too much at once", "Try again {after}."],
  500: ["Something failed", "The proxy's log says why."],
  502: ["The provider failed", "Try again in a moment, or choose another model."],
  503: ["Nobody can answer just now", "Try again {after}."],
  504: ["The provider did not answer in time", "Try again, or choose another model."],
});

/** {title, message, detail, advice}. `about`: what the proxy says of itself; `key`: one was shown. */
export function mend(problem, about, key) {
  const [title, advice] =
    special(problem, about, key) ??
    CODES.get(problem.code) ??
    STATUSES.get(String(problem.status)) ??
    STATUSES.get("500");
  const after = problem.after ? `in ${duration(Math.max(1, problem.after))}` : "in a moment";
  const detail = [problem.status >= 400 ? problem.status : "", problem.code ?? ""].filter(String).join(" · ");
  return { title, message: problem.message, detail, advice: advice.replace("{after}", after) };
}

function special(problem, about, key) {
  if (problem.status === 401) return refusedKey(about, key);
  if (problem.status === 403 && problem.code === "forbidden" && /loopback names/.test(problem.message)) {
    return [
      "This proxy answers on this machine only",
      "Open http://127.0.0.1 with its port instead, or give it [[keys]].",
    ];
  }
  if (problem.status === 403 && problem.code === "forbidden" && /Origin/.test(problem.message)) {
    return [
      "This address is not known to the proxy",
      "Something before it changes the Host. Name this page's address in server.cors_origins.",
    ];
  }
  if (problem.status === 400 && problem.param === "model") {
    return [
      "Choose a model",
      "Pick one from the list above. “default_model” in [routing] sets the one for requests that name none.",
    ];
  }
  return problem.code === "insufficient_quota" ? budget(problem.message) : null;
}

// As core/budget.py says it; a provider's own words for the same code are others.
const LEFT = /this key's budget of .* ([0-9.]+) are left/;

function budget(message) {
  const left = LEFT.exec(message)?.[1];
  if (left === undefined) return null;
  const raise = "Whoever runs this proxy can raise “budget” of this key.";
  if (Number(left) > 0) {
    return [
      `This may cost more than the ${money(left)} that are left`,
      "The most that a request can cost is set aside before it is sent. Lower the maximum of tokens, shorten the " +
        `conversation, or choose a cheaper model. ${raise}`,
    ];
  }
  const anew = /begins anew/.test(message) ? "It opens again by itself, as said above." : "It does not open again.";
  return ["The budget is spent", `${anew} ${raise}`];
}

function refusedKey(about, key) {
  if (!key)
    return about.provider_key
      ? ["The provider wants a key", "Enter the provider's key above; it is passed on to it."]
      : CODES.get("no_key");
  if (about.provider_key)
    return [
      "The provider refused this key",
      "Enter another one above. It is the provider's own key that is asked for.",
    ];
  return [
    "This key does not open the playground",
    "It is unknown, revoked or expired; or it is the admin's, which shows everybody's figures and cannot ask. " +
      "Enter a client's key.",
  ];
}
