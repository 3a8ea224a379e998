// Signs in by the link that the exporter prints where it has made a token: /login#token=local.SECRET. What is behind
// the # is sent to no server, and so is in no log of a proxy.

// A shared link holds its view behind the #, which the server never receives. A browser carries the fragment of the
// form's address over the redirect, which leads to this origin's page alone.

const form = document.querySelector("form");
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) {
  history.replaceState(null, "", location.pathname);
  form.elements.token.value = token;
  // Any other token waits for its reader: a link of somebody else must sign nobody in as another.
  if (token.startsWith("local.")) form.submit();
} else {
  form.action = `/login${location.hash}`;
}
