// Brings the page up to date while it is looked at. Everything works without it.
"use strict";
(() => {
  let due = false, busy = false, last = "";

  // swap replaces the live parts of this page by those of a newer one, but no
  // part in which somebody is typing; opened details stay open.
  const swap = (newer) => {
    for (const part of document.querySelectorAll("[data-live][id]")) {
      const next = newer.getElementById(part.id);
      if (!next || part.contains(document.activeElement) || part.innerHTML === next.innerHTML) continue;
      const open = [...part.querySelectorAll("details[open][id]")].map((d) => d.id);
      const node = document.importNode(next, true);
      part.replaceWith(node);
      for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    }
  };

  const refresh = async () => {
    if (busy) { due = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { "X-Live": "1" }, credentials: "same-origin" });
      if (answer.status === 401) { location.reload(); return; }
      if (answer.ok) swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch { /* the node is away; the stream says when it is back */ }
    setTimeout(() => { busy = false; if (due) { due = false; refresh(); } }, 2000);
  };

  // A page that is the answer to a form cannot be asked for again.
  const repeatable = !document.querySelector("form.answer, [data-once]");
  let stream = null;
  const follow = () => {
    if (document.hidden) { stream?.close(); stream = null; return; }
    if (stream) return;
    stream = new EventSource("/live");
    stream.addEventListener("state", (e) => {
      if (e.data !== last && last !== "" && repeatable) refresh();
      last = e.data;
      document.documentElement.dataset.followed = "yes";
    });
  };
  // On a narrow screen the menu is a strip: begin it at this page.
  document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

  document.addEventListener("visibilitychange", follow);
  follow();
})();
