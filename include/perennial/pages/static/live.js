// Reads the page again after a while, as long as somebody looks at it and types nothing into it.
(() => {
  "use strict";
  const mark = document.querySelector("[data-reload]");
  const seconds = mark ? Number(mark.dataset.reload) : 0;
  if (!(seconds > 0)) return;
  const busy = () =>
    document.hidden ||
    [...document.querySelectorAll("form input:not([type=hidden])")].some((field) => field.value || field === document.activeElement);
  const wait = () =>
    window.setTimeout(() => {
      if (busy()) wait();
      else window.location.reload();
    }, seconds * 1000);
  wait();
})();
