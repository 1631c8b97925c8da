/* global acquireVsCodeApi, document, Element */
// Clicks of the IGVM summary become commands of the extension; nothing else happens in the page.
(() => {
  const host = acquireVsCodeApi();
  document.addEventListener('click', (event) => {
    const control = event.target instanceof Element ? event.target.closest('[data-command]') : null;
    if (!control) return;
    const { command, argument } = control.dataset;
    host.postMessage({ command, argument: argument === undefined ? undefined : Number(argument) });
  });
})();
