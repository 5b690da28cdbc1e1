"use strict";
(() => {
  // rows[i] lists the stretches [begin, end) of places that place i sees.
  const rows = JSON.parse(document.getElementById("rows").textContent);
  const ribbons = [...document.querySelectorAll(".ribbon")];
  const picture = document.getElementById("picture");
  const statuses = [...document.querySelectorAll(".status")];
  const hint = statuses[0].textContent;
  const tokens = ribbons.flatMap((ribbon) => [...ribbon.querySelectorAll(".token")]);
  const lines = { row: document.getElementById("row"), column: document.getElementById("column") };
  const sees = (i, j) => rows[i].some(([begin, end]) => begin <= j && j < end);
  const name = (i) => "\u201c" + tokens[i].querySelector(".piece").textContent + "\u201d";
  const count = rows.map((runs) => runs.reduce((sum, [begin, end]) => sum + end - begin, 0));
  const seenBy = rows.map((_, j) => rows.filter((_, i) => sees(i, j)).length);
  let current = null;

  function look(i, j = null) {
    current = i;
    ribbons.forEach((ribbon) => ribbon.classList.add("looking"));
    tokens.forEach((token, place) => {
      token.classList.toggle("looks", place === i);
      token.classList.toggle("unseen", place !== i && !sees(i, place));
    });
    mark("row", "y", i);
    mark("column", "x", j);
    say(j === null
      ? `${name(i)} sees ${count[i]} of ${rows.length} places, itself included; ${seenBy[i]} see it.`
      : `${name(i)} ${sees(i, j) ? "sees" : "does not see"} ${name(j)}.`);
  }

  function rest() {
    current = null;
    ribbons.forEach((ribbon) => ribbon.classList.remove("looking"));
    tokens.forEach((token) => token.classList.remove("looks", "unseen"));
    mark("row", "y", null);
    mark("column", "x", null);
    say(hint);
  }

  function say(text) {
    statuses.forEach((status) => { status.textContent = text; });
  }

  function mark(line, axis, place) {
    lines[line].toggleAttribute("hidden", place === null);
    lines[line].style.display = place === null ? "none" : "";
    if (place !== null) lines[line].setAttribute(axis, place);
  }

  tokens.forEach((token, i) => {
    token.addEventListener("pointerenter", () => look(i));
    token.addEventListener("focus", () => look(i));
  });
  ribbons.forEach((ribbon) => {
    ribbon.addEventListener("pointerleave", rest);
    ribbon.addEventListener("focusout", (event) => ribbon.contains(event.relatedTarget) || rest());
    ribbon.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step === undefined || current === null || !tokens[current + step]) return;
      event.preventDefault();
      tokens[current + step].focus();
    });
  });
  picture.addEventListener("pointermove", (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
    const place = (offset) => Math.min(rows.length - 1, Math.max(0, Math.floor(offset)));
    look(place(point.y), point.x < 0 ? null : place(point.x));
  });
  picture.addEventListener("pointerleave", rest);
  rest();
})();
