/** JSON as Python's `json.dumps(value, sort_keys=True)` writes it, numbers and strings left as they stand in the text. */

const TOKEN = /\s*([{}[\],:]|"(?:[^"\\]|\\.)*"|[^\s{}[\],:"]+)/y;

/** @param {string} text  of an object  @param {string} dropped  a key of it that is left out */
export function sortedJson(text, dropped) {
  TOKEN.lastIndex = 0;
  const next = () => TOKEN.exec(text)?.[1];
  const value = (token, without) => {
    if (token === "[") return `[${listed("]").join(", ")}]`;
    if (token !== "{") return token;
    const entries = [];
    for (let key = next(); key !== "}"; key = next()) {
      if (key === ",") continue;
      next(); // the colon
      entries.push([JSON.parse(key), `${key}: ${value(next())}`]);
    }
    entries.sort(([a], [b]) => (a < b ? -1 : Number(a > b)));
    return `{${entries.filter(([key]) => key !== without).map(([, entry]) => entry).join(", ")}}`;
  };
  const listed = (end) => {
    const items = [];
    for (let token = next(); token !== end; token = next()) if (token !== ",") items.push(value(token));
    return items;
  };
  return value(next(), dropped);
}
