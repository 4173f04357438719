// Gradio accepts photos that are dropped on its drop area. This adds photos that are pasted, and
// photos that are dropped on the gallery. NAME is replaced by the name of the input.
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
document.addEventListener('dragover', (event) => { if (taken(event)) event.preventDefault(); });
document.addEventListener('drop', (event) => {
  if (!taken(event)) return;
  event.preventDefault();
  give(event.dataTransfer.files);
});
