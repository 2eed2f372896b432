// What is better with JavaScript: pages that keep themselves up to date, and values under the pointer on charts.
// Everything works without it. No dependency, nothing from elsewhere.

const ACTIVITY_EVERY_MS = 2000;
const PAGE_AT_MOST_EVERY_MS = 5000;

function keepUpToDate() {
  const line = document.querySelector("[data-activity]");
  if (!line) return;
  let last = line.innerHTML.replace(/\s+/g, " ").trim();
  let pageAt = Date.now();
  let isStale = false;

  async function look() {
    if (document.visibilityState === "visible") {
      try {
        const answer = await fetch(line.dataset.activity, { headers: { Accept: "text/html" }, redirect: "manual" });
        if (answer.type === "opaqueredirect") return; // signed out meanwhile: the next click says so
        const text = (await answer.text()).trim();
        const now = text.replace(/\s+/g, " ").trim();
        if (answer.ok && now !== last) {
          last = now;
          line.innerHTML = text;
          isStale = true;
        }
        if (isStale && Date.now() - pageAt >= PAGE_AT_MOST_EVERY_MS) {
          isStale = false;
          pageAt = Date.now();
          await refresh();
        }
      } catch {
        // Relevo is not there for a moment: look again.
      }
    }
    setTimeout(look, ACTIVITY_EVERY_MS);
  }
  setTimeout(look, ACTIVITY_EVERY_MS);
}

// Takes the parts marked data-live from a fresh copy of this page, unless somebody is using one of them.
async function refresh() {
  const mine = [...document.querySelectorAll("[data-live]")];
  if (mine.length === 0) return;
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok || answer.redirected) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const theirs = [...fresh.querySelectorAll("[data-live]")];
  if (theirs.length !== mine.length) return;
  mine.forEach((part, i) => {
    const isInUse = part.contains(document.activeElement) || part.querySelector("details[open], :hover > svg");
    const isTyped = [...part.querySelectorAll("textarea")].some((field) => field.value !== field.defaultValue);
    if (!isInUse && !isTyped && part.innerHTML !== theirs[i].innerHTML) {
      part.replaceWith(document.importNode(theirs[i], true));
      hide();
    }
  });
}

// -- values on charts -------------------------------------------------------------------------------------------

const hint = document.createElement("div");
hint.className = "hint";
hint.setAttribute("role", "status");
hint.hidden = true;
let pointed = null;

function marksOf(chart) {
  return [...chart.querySelectorAll('[aria-label][role="graphics-symbol"]')];
}

function show(mark) {
  if (mark === pointed) return;
  hide();
  pointed = mark;
  mark.classList.add("is-pointed");
  hint.textContent = mark.getAttribute("aria-label");
  hint.hidden = false;
  const place = mark.getBoundingClientRect();
  const room = document.documentElement.clientWidth - hint.offsetWidth - 8;
  const left = Math.max(8, Math.min(room, place.left + place.width / 2 - hint.offsetWidth / 2));
  const above = place.top - hint.offsetHeight - 8;
  hint.style.left = `${left + scrollX}px`;
  hint.style.top = `${(above < 4 ? place.bottom + 8 : above) + scrollY}px`;
}

function hide() {
  pointed?.classList.remove("is-pointed");
  pointed = null;
  hint.hidden = true;
}

function watchCharts() {
  document.body.append(hint);
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest?.('.chart [aria-label][role="graphics-symbol"]');
    if (mark) show(mark);
    else if (pointed) hide();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    const chart = event.target.closest?.(".chart");
    if (!chart || !["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
    const marks = marksOf(chart);
    if (marks.length === 0) return;
    event.preventDefault();
    const place = marks.indexOf(pointed);
    const last = marks.length - 1;
    const next = { ArrowLeft: place < 0 ? last : Math.max(0, place - 1), ArrowRight: Math.min(last, place + 1), Home: 0, End: last };
    show(marks[next[event.key]]);
  });
  document.addEventListener("focusout", (event) => {
    if (event.target.closest?.(".chart")) hide();
  });
}

watchCharts();
keepUpToDate();
