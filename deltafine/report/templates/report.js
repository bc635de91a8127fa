"use strict";
// Sorting: every heading of a sortable table becomes a button; a cell sorts by its data-value, else by its text.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const number = heading.classList.contains("number") || table.querySelector(`tbody tr > :nth-child(${column + 1})[data-value]`);
      // Numbers first show the largest, text first shows A.
      const first = number ? "descending" : "ascending";
      const second = number ? "ascending" : "descending";
      const order = heading.getAttribute("aria-sort") === first ? second : first;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const key = (row) => {
        const cell = row.cells[column];
        if (!number) return cell.textContent;
        return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
      };
      const sign = order === "ascending" ? 1 : -1;
      const compare = (left, right) => {
        const [a, b] = [key(left), key(right)];
        if (!number) return sign * a.localeCompare(b, undefined, { numeric: true });
        // Rows without a figure stay at the end whatever the order.
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        return sign * (a - b);
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(compare));
    });
  });
}
// A link to what is folded opens it.
const unfold = () => {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const folded = target.closest("details") || target.querySelector(":scope > details");
  if (folded) folded.open = true;
  target.scrollIntoView();
};
window.addEventListener("hashchange", unfold);
unfold();
// What a pointer shows on hovering, a touch or a click shows below: of a plot, the note of the nearest point.
const tip = document.getElementById("tip");
const REACH = 30;  // pixels
const noteAt = (event) => {
  const plot = event.target.closest("svg.plot");
  if (!plot) return event.target.closest("[title]:not(a)")?.getAttribute("title");
  let [nearest, distance] = [event.target.querySelector(":scope > title"), REACH];
  if (nearest) return nearest.textContent;
  for (const point of plot.querySelectorAll("circle")) {
    const box = point.getBoundingClientRect();
    const away = Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
    if (away < distance) [nearest, distance] = [point.querySelector("title"), away];
  }
  return nearest?.textContent;
};
const tell = (note) => {
  tip.textContent = note || "";
  tip.hidden = !note;
};
document.addEventListener("click", (event) => {
  const note = noteAt(event);
  tell(tip.hidden || note !== tip.textContent ? note : "");  // once more on the same hides it
});
// With the keyboard: what has a note can be focused, and shows it then; in a plot, the arrow keys go from point to point.
const pointsOf = (plot) => [...plot.querySelectorAll("title")].map((title) => title.parentNode);
const leave = (plot) => plot.querySelector(".at")?.classList.remove("at");
const goTo = (plot, number) => {
  const points = pointsOf(plot);
  leave(plot);
  const point = points[Math.max(0, Math.min(points.length - 1, number))];
  point.classList.add("at");
  tell(point.querySelector(":scope > title").textContent);
};
for (const one of document.querySelectorAll("[title]:not(a), svg.plot:has(title)")) one.setAttribute("tabindex", "0");
document.addEventListener("focusin", (event) => {
  if (!event.target.matches(":focus-visible")) return;
  if (!event.target.matches("svg.plot")) return tell(event.target.getAttribute("title"));
  event.target.scrollIntoView({ block: "center" });  // else the note may cover it
  goTo(event.target, 0);
});
document.addEventListener("focusout", (event) => {
  tell("");
  if (event.target.matches("svg.plot")) leave(event.target);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") tell("");
  const plot = document.activeElement;
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  if (!plot.matches("svg.plot") || !(event.key in steps)) return;
  event.preventDefault();  // which would scroll
  goTo(plot, pointsOf(plot).indexOf(plot.querySelector(".at")) + steps[event.key]);
});
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
