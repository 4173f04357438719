// Buttons of unknown classes: a press sends the name to replace and the name to use.
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-name]');
  if (button) trigger('click', {name: button.dataset.name, other: button.dataset.other});
});
