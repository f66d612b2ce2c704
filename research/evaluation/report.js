"use strict";

// Theme: follows the system until the button says otherwise.
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = getComputedStyle(root).colorScheme === "dark" ||
    (getComputedStyle(root).colorScheme !== "light" &&
      matchMedia("(prefers-color-scheme: dark)").matches);
  root.style.colorScheme = dark ? "light" : "dark";
});

// The section in view is marked in the navigation.
{
  const links = [...document.querySelectorAll("nav a")];
  const mark = (entries) => entries.forEach((entry) => {
    const link = links.find((a) => a.hash === "#" + entry.target.id);
    if (link) link.classList.toggle("here", entry.isIntersecting);
  });
  const watch = new IntersectionObserver(mark, { rootMargin: "-45% 0px" });
  document.querySelectorAll("section").forEach((s) => watch.observe(s));
}

// Curves: a cross-hair with the value under the pointer.
{
  const SVG = "http://www.w3.org/2000/svg";
  const shape = (name, group) =>
    group.appendChild(document.createElementNS(SVG, name));
  const set = (node, pairs) => Object.entries(pairs)
    .forEach(([key, value]) => node.setAttribute(key, value));

  const nearest = (steps, wanted) => {
    let low = 0, high = steps.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] < wanted) low = middle; else high = middle;
    }
    return wanted - steps[low] < steps[high] - wanted ? low : high;
  };

  const attach = (svg) => {
    const read = (name) => JSON.parse(svg.dataset[name]);
    const [left, top, width, height] = read("frame");
    const [steps, values, xs, ys] =
      ["steps", "values", "xs", "ys"].map(read);
    const group = shape("g", svg);
    group.setAttribute("class", "hover");
    const line = shape("line", group);
    const dot = shape("circle", group);
    const words = shape("text", group);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const pixel = (event.clientX - box.left) * 360 / box.width;
      const share = (pixel - left) / width;
      const at = nearest(steps, xs[0] + share * (xs[1] - xs[0]));
      const x = left + width * (steps[at] - xs[0]) / (xs[1] - xs[0]);
      const y = top + height * (ys[1] - values[at]) / (ys[1] - ys[0]);
      const right = x > left + width / 2;
      set(line, { x1: x, x2: x, y1: top, y2: top + height });
      set(dot, { cx: x, cy: y, r: 3 });
      set(words, {
        x: x + (right ? -7 : 7), y: top + 11,
        "text-anchor": right ? "end" : "start",
      });
      words.textContent =
        `${values[at]} at step ${steps[at].toLocaleString("en")}`;
      group.style.visibility = "visible";
    });
    svg.addEventListener("pointerleave", () => {
      group.style.visibility = "hidden";
    });
  };
  document.querySelectorAll("svg[data-steps]").forEach(attach);
}
