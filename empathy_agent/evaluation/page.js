// Comfort only: everything is on the page without this. Opens what is folded before printing, and folds or unfolds all at once.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
const conversations = document.querySelectorAll("details.conversation");
if (conversations.length > 1) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Unfold all" });
  button.addEventListener("click", () => {
    const open = ![...conversations].every((conversation) => conversation.open);
    conversations.forEach((conversation) => { conversation.open = open; });
    button.textContent = open ? "Fold all" : "Unfold all";
  });
  document.getElementById("fold").append(button);
}
