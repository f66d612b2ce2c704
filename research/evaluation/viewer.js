
// The sample viewer. Model text enters the page through textContent alone.
{
  const ROW = 54; // pixels; the list is virtual, so rows are equally tall
  const SPARE = 8; // rows drawn beyond what is seen
  const SHOWN = ["step", "stage", "prompt", "completion", "verdict"];
  const GLYPHS = {
    correct: "✓", wrong: "✗", unparsed: "?", timeout: "◷", error: "!",
  };
  const FACETS = ["stage", "suite", "student"];
  const $ = (id) => document.getElementById(id);
  const make = (name, className, ...children) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    node.append(...children); // strings become text nodes
    return node;
  };
  const glyph = (verdict) =>
    make("i", "verdict " + kind(verdict), GLYPHS[verdict] ?? "·");
  const kind = (verdict) => (verdict in GLYPHS ? verdict : "none");
  const brief = (value) => typeof value === "number"
    ? value.toLocaleString("en", { maximumFractionDigits: 3 })
    : typeof value === "string" ? value : JSON.stringify(value);

  let samples = []; // all, as logged
  let visible = []; // those that pass the filters, in the chosen order
  let steps = []; // what the slider's positions mean
  let at = 0; // the chosen one's place among the visible
  const wanted = { verdicts: new Set(), step: null, query: "" };

  // -- unpacking ---------------------------------------------------------
  const unpack = async (script) => {
    const text = atob(script.textContent.trim());
    const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
    const zipped = new Blob([bytes]).stream();
    const plain = zipped.pipeThrough(new DecompressionStream("gzip"));
    const { size, columns } = await new Response(plain).json();
    const names = Object.keys(columns);
    const values = names.map((name) => {
      const column = columns[name];
      return Array.isArray(column) ? column
        : column.index.map((i) => column.values[i]);
    });
    return Array.from({ length: size }, (_, row) => {
      const sample = { stage: script.dataset.stage };
      names.forEach((name, i) => { sample[name] = values[i][row]; });
      return sample;
    });
  };

  // -- filtering ---------------------------------------------------------
  const texts = new WeakMap(); // lower-case text, made when first searched
  const text = (sample) => {
    if (!texts.has(sample)) {
      const whole = `${sample.prompt ?? ""}\n${sample.completion ?? ""}`;
      texts.set(sample, whole.toLowerCase());
    }
    return texts.get(sample);
  };
  const chosen = (facet) => $("facet-" + facet)?.value ?? "";
  const inFacets = (sample) => FACETS.every((facet) => {
    const value = chosen(facet);
    return !value || String(sample[facet]) === value;
  });
  const inVerdict = (sample) => !wanted.verdicts.size ||
    wanted.verdicts.has(kind(sample.verdict));
  const inStep = (sample) =>
    wanted.step === null || sample.step === wanted.step;
  const number = (value) => value ?? -Infinity;
  const ORDERS = {
    logged: null,
    longest: (a, b) => number(b.tokens) - number(a.tokens),
    shortest: (a, b) => number(a.tokens) - number(b.tokens),
    best: (a, b) => number(b.reward) - number(a.reward),
  };

  const refresh = () => {
    const pool = samples.filter((sample) => inFacets(sample) &&
      (!wanted.query || text(sample).includes(wanted.query)));
    const here = pool.filter(inStep);
    visible = here.filter(inVerdict);
    const order = ORDERS[$("order").value];
    if (order) visible.sort(order);
    drawSteps(pool);
    drawVerdicts(here);
    $("spacer").style.height = visible.length * ROW + "px";
    $("total").textContent = `of ${visible.length.toLocaleString("en")}`;
    $("position").max = visible.length;
    $("list").scrollTop = 0;
    choose(0);
  };

  // -- the timeline ------------------------------------------------------
  const drawSteps = (pool) => {
    steps = [...new Set(pool.map((s) => s.step))]
      .filter((step) => typeof step === "number").sort((a, b) => a - b);
    $("step").parentElement.parentElement.hidden = steps.length < 2;
    if (wanted.step !== null && !steps.includes(wanted.step)) {
      steps = [...steps, wanted.step].sort((a, b) => a - b);
    }
    $("step").max = Math.max(0, steps.length - 1);
    if (wanted.step !== null) $("step").value = steps.indexOf(wanted.step);
    $("step").classList.toggle("all", wanted.step === null);
    $("all-steps").disabled = wanted.step === null;
    $("step-label").textContent = wanted.step === null
      ? `${steps.length} steps`
      : `step ${wanted.step.toLocaleString("en")}`;
    drawBars(pool);
  };

  const drawBars = (pool) => {
    const kinds = [...Object.keys(GLYPHS), "none"];
    const bins = Math.min(steps.length, 160);
    const place = new Map(steps.map((step, i) =>
      [step, Math.floor(i * bins / steps.length)]));
    const counts = Array.from({ length: bins }, () => kinds.map(() => 0));
    for (const sample of pool) {
      const bin = place.get(sample.step);
      if (bin !== undefined) counts[bin][kinds.indexOf(kind(sample.verdict))]++;
    }
    const width = 1000 / bins;
    const bars = counts.flatMap((row, bin) => {
      const total = row.reduce((a, b) => a + b, 0);
      let base = 44;
      return row.flatMap((count, i) => {
        if (!count) return [];
        const tall = 44 * count / total;
        base -= tall;
        const bar =
          document.createElementNS("http://www.w3.org/2000/svg", "rect");
        bar.setAttribute("class", "bar " + kinds[i]);
        bar.setAttribute("x", bin * width + 0.5);
        bar.setAttribute("y", base);
        bar.setAttribute("width", Math.max(1, width - 1));
        bar.setAttribute("height", tall);
        return [bar];
      });
    });
    $("bars").replaceChildren(...bars);
  };

  const moveStep = (by) => {
    if (!steps.length) return;
    const now = wanted.step === null ? (by > 0 ? -1 : steps.length)
      : steps.indexOf(wanted.step);
    setStep(steps[Math.min(steps.length - 1, Math.max(0, now + by))]);
  };
  const setStep = (step) => {
    wanted.step = step;
    refresh();
  };

  // -- the list ----------------------------------------------------------
  const drawVerdicts = (pool) => {
    const counts = {};
    for (const sample of pool) {
      const name = kind(sample.verdict);
      counts[name] = (counts[name] ?? 0) + 1;
    }
    const chips = [...Object.keys(GLYPHS), "none"]
      .filter((name) => counts[name] || wanted.verdicts.has(name))
      .map((name) => {
        const count = (counts[name] ?? 0).toLocaleString("en");
        const label = name === "none" ? "not graded" : name;
        const chip = make("button", "chip", glyph(name), label,
          make("small", "", count));
        chip.type = "button";
        chip.setAttribute("aria-pressed", wanted.verdicts.has(name));
        chip.addEventListener("click", () => {
          if (!wanted.verdicts.delete(name)) wanted.verdicts.add(name);
          refresh();
        });
        return chip;
      });
    $("verdicts").replaceChildren(...chips);
  };

  const drawList = () => {
    const list = $("list");
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
    const count = Math.ceil(list.clientHeight / ROW) + 2 * SPARE;
    const rows = visible.slice(first, first + count)
      .map((sample, i) => row(sample, first + i));
    $("spacer").replaceChildren(...rows);
  };

  const row = (sample, i) => {
    const facts = [
      sample.step === undefined || sample.step === null ? sample.stage
        : `step ${sample.step}`,
      typeof sample.reward === "number" ? `reward ${brief(sample.reward)}` : "",
      typeof sample.tokens === "number" ? `${sample.tokens} tokens` : "",
    ].filter(Boolean);
    const line = String(sample.prompt ?? sample.problem ?? "")
      .trim().slice(0, 160);
    const node = make("div", "row", glyph(sample.verdict),
      make("span", "line", line),
      make("span", "facts", facts.join(" · ")));
    node.style.top = i * ROW + "px";
    node.id = "row-" + i;
    node.setAttribute("role", "option");
    node.setAttribute("aria-selected", i === at);
    node.addEventListener("click", () => choose(i));
    return node;
  };

  const page = () => Math.max(1, Math.floor($("list").clientHeight / ROW) - 1);

  const choose = (i) => {
    at = Math.max(0, Math.min(visible.length - 1, i));
    const list = $("list"), top = at * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    const under = top + ROW - list.clientHeight;
    if (under > list.scrollTop) list.scrollTop = under;
    $("position").value = visible.length ? at + 1 : 0;
    list.setAttribute("aria-activedescendant", "row-" + at);
    drawList();
    drawDetail(visible[at]);
  };

  // -- one sample --------------------------------------------------------
  const marked = (className, words) => {
    const node = make("pre", className);
    const lower = words.toLowerCase();
    let from = 0;
    // A few letters change length in lower case: then no marks are drawn.
    const query = lower.length === words.length ? wanted.query : "";
    for (let hit; query && (hit = lower.indexOf(query, from)) >= 0;) {
      const end = hit + query.length;
      node.append(words.slice(from, hit),
        make("mark", "", words.slice(hit, end)));
      from = end;
    }
    node.append(words.slice(from));
    return node;
  };

  const siblings = (sample) => {
    const has = (key) => sample[key] !== undefined && sample[key] !== null;
    const key = has("group") ? "group" : has("problem") ? "problem" : "";
    const same = !key ? [] : samples.filter((other) =>
      [key, "stage", "step", "suite", "student"]
        .every((name) => other[name] === sample[name]));
    if (same.length < 2) return [];
    const buttons = same.map((other) => {
      const reward = typeof other.reward === "number"
        ? make("small", "", brief(other.reward)) : "";
      const button = make("button", "chip", glyph(other.verdict), reward);
      button.type = "button";
      button.setAttribute("aria-pressed", other === sample);
      button.addEventListener("click", () => {
        const place = visible.indexOf(other);
        if (place >= 0) choose(place); else drawDetail(other);
      });
      return button;
    });
    return [make("h4", "", `same ${key}, ${same.length} samples`),
      make("div", "siblings", ...buttons)];
  };

  const drawDetail = (sample) => {
    if (!sample) {
      const note = "No sample passes these filters.";
      $("detail").replaceChildren(make("p", "note", note));
      return;
    }
    const verdict = sample.verdict ?? "not graded";
    const step =
      typeof sample.step === "number" ? `, step ${brief(sample.step)}` : "";
    const head = make("h3", "", glyph(sample.verdict), String(verdict),
      make("small", "", sample.stage + step));
    const facts = Object.entries(sample)
      .filter(([key, value]) => !SHOWN.includes(key) &&
        value !== null && value !== undefined)
      .map(([key, value]) => make("div", "", make("dt", "", key),
        make("dd", "", brief(value))));
    $("detail").replaceChildren(head, make("dl", "facts", ...facts),
      make("h4", "", "prompt"), marked("", String(sample.prompt ?? "")),
      make("h4", "", "completion"),
      marked("completion " + kind(sample.verdict),
        String(sample.completion ?? "")),
      ...siblings(sample));
    $("detail").scrollTop = 0;
  };

  // -- controls ----------------------------------------------------------
  const drawFacets = () => {
    const selects = FACETS.flatMap((facet) => {
      const counts = new Map();
      for (const sample of samples) {
        const value = sample[facet];
        if (value === undefined || value === null) continue;
        counts.set(String(value), (counts.get(String(value)) ?? 0) + 1);
      }
      if (counts.size < 2) return [];
      const select = make("select", "");
      select.id = "facet-" + facet;
      select.append(new Option("all", ""), ...[...counts].map(([name, n]) =>
        new Option(`${name} (${n.toLocaleString("en")})`, name)));
      select.addEventListener("change", () => {
        wanted.step = null;
        refresh();
      });
      return [make("label", "", facet + " ", select)];
    });
    $("facets").replaceChildren(...selects);
  };

  const KEYS = {
    j: () => choose(at + 1), k: () => choose(at - 1),
    h: () => moveStep(-1), l: () => moveStep(1), a: () => setStep(null),
    "/": () => $("query").focus(),
  };
  const LIST_KEYS = {
    ArrowDown: KEYS.j, ArrowUp: KEYS.k, ArrowLeft: KEYS.h, ArrowRight: KEYS.l,
    PageDown: () => choose(at + page()), PageUp: () => choose(at - page()),
    Home: () => choose(0), End: () => choose(visible.length - 1),
  };
  const press = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input, select, textarea");
    if (typing && event.key === "Escape") event.target.blur();
    const action = typing ? null : KEYS[event.key] ??
      (event.target === $("list") ? LIST_KEYS[event.key] : null);
    if (action) {
      event.preventDefault();
      action();
    }
  };

  const listen = () => {
    let timer = 0;
    $("query").addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        wanted.query = $("query").value.trim().toLowerCase();
        refresh();
      }, 120);
    });
    $("step").addEventListener("input", () => setStep(steps[$("step").value]));
    $("all-steps").addEventListener("click", KEYS.a);
    $("order").addEventListener("change", refresh);
    $("list").addEventListener("scroll", drawList, { passive: true });
    $("position").addEventListener("change",
      () => choose(Number($("position").value) - 1));
    $("previous").addEventListener("click", LIST_KEYS.PageUp);
    $("next").addEventListener("click", LIST_KEYS.PageDown);
    document.addEventListener("keydown", press);
    addEventListener("resize", drawList);
  };

  const open = async () => {
    const scripts = [...document.querySelectorAll("script.payload")];
    if (!scripts.length) return;
    // One at a time and not push(...list): a spread of 10^5 overflows.
    for (const script of scripts) {
      samples = samples.concat(await unpack(script));
    }
    $("viewer").hidden = false;
    drawFacets();
    listen();
    refresh();
  };
  open().catch((error) => {
    const words = `The samples could not be unpacked: ${error}`;
    $("viewer").before(make("p", "note", words));
  });
}
