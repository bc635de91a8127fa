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
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
