// The page's one alert region reads out each new error, wherever it is shown.
const region = element.querySelector('[role=alert]');
let before = '';
new MutationObserver(() => {
  const shown = [...document.querySelectorAll('.message.error')].filter((each) => each.offsetParent);
  const text = shown.map((each) => each.innerText.trim()).join('\n');
  if (text === before) return;
  before = region.textContent = text;
}).observe(document.body, {childList: true, subtree: true});
