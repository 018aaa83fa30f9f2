// Server-sent events out of the body of a fetch: a browser's own EventSource cannot POST.

const LINE = /\r\n|\n|\r(?!$)/; // a CR at the very end may be half of a CRLF

/** Each whole {event, data} of this response, up to its end. Raises what its reader raises. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let fields = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      const lines = (rest + (done ? (rest.endsWith("\r") ? "\n" : "") : value)).split(LINE);
      rest = lines.pop();
      for (const line of lines) {
        if (line !== "") fields.push(line);
        else if (fields.length) {
          const found = read(fields);
          fields = [];
          if (found.data !== null) yield found;
        }
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function read(fields) {
  let event = "message";
  const data = [];
  for (const field of fields) {
    const [, name, value] = /^([^:]*)(?:: ?)?([^]*)$/.exec(field);
    if (name === "event") event = value;
    if (name === "data") data.push(value);
  }
  return { event, data: data.length ? data.join("\n") : null };
}
