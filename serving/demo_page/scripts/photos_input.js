// Gradio accepts photos that are dropped on its drop area. This adds photos that are pasted, and
// photos that are dropped on the gallery, and names the gallery's buttons by their photos. NAME is
// replaced by the name of the input.
const box = () => document.getElementById('NAME-photos');
const give = (files) => {
  const input = box().querySelector('input[type=file]');
  const photos = new DataTransfer();
  for (const file of files) photos.items.add(file);
  if (!input || !photos.files.length) return;
  input.files = photos.files;
  input.dispatchEvent(new Event('change', {bubbles: true}));
};
const taken = (event) =>
  box()?.contains(event.target) && !event.target.closest('[aria-dropeffect]');
document.addEventListener('paste', (event) => {
  const files = [...event.clipboardData.files].filter((file) => file.type.startsWith('image/'));
  if (!files.length || !box()?.offsetParent) return;
  event.preventDefault();
  give(files);
});
// Gradio puts a button for files into another button; style.css hides the inner one.
document.addEventListener('click', (event) => {
  const outer = event.target.closest('#NAME-photos .icon-button');
  const input = outer?.querySelector('input[type=file]');
  if (input && event.target !== input) input.click();
});
new MutationObserver(() => {
  for (const item of box()?.querySelectorAll('.thumbnail-item') ?? []) {
    const name = item.querySelector('img')?.alt;
    if (name && item.getAttribute('aria-label') !== name) item.setAttribute('aria-label', name);
  }
}).observe(document.body, {childList: true, subtree: true});
document.addEventListener('dragover', (event) => { if (taken(event)) event.preventDefault(); });
document.addEventListener('drop', (event) => {
  if (!taken(event)) return;
  event.preventDefault();
  give(event.dataTransfer.files);
});
