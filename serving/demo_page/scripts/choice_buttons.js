// Buttons with data-choice: a press sends its choice, is marked at once and keeps the focus.
// In a grid (data-columns) one button has the focus, and the arrow keys move it.
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-choice]');
  if (!button) return;
  const group = button.closest('[role=group]');
  for (const other of group.querySelectorAll('button[data-choice]')) {
    if (other.hasAttribute('aria-pressed'))
      other.setAttribute('aria-pressed', other === button ? 'true' : 'false');
  }
  trigger('click', {choice: button.dataset.choice});
});
element.addEventListener('keydown', (event) => {
  const grid = event.target.closest('[data-columns]');
  if (!grid) return;
  const columns = Number(grid.dataset.columns);
  const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns}[event.key];
  if (step === undefined) return;
  const buttons = [...grid.querySelectorAll('button[data-choice]')];
  const next = buttons[buttons.indexOf(event.target) + step];
  event.preventDefault();
  if (!next) return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});
