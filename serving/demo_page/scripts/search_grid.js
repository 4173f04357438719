// The caption below a picture names it; a screen reader would read the same text twice.
new MutationObserver(() => {
  for (const picture of document.querySelectorAll('#search-grid .grid-container img')) {
    if (picture.alt) picture.alt = '';
  }
}).observe(document.body, {childList: true, subtree: true});
