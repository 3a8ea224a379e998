// Signs in by the link that the exporter prints with a created token: /login#token=local.SECRET. A browser sends the
// part behind the # to no server, so it is in no log of a proxy.

// A shared link holds its view behind the #, which the server never receives. A browser carries the fragment of the
// form's address over the redirect, which leads to this origin's page alone.

const form = document.querySelector("form");
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) {
  history.replaceState(null, "", location.pathname);
  form.elements.token.value = token;
  // Another token is only filled in: somebody else's link must not sign a reader in.
  if (token.startsWith("local.")) form.submit();
} else {
  form.action = `/login${location.hash}`;
}
