// Signs the bytes of a statement with a passkey, and enrols one. Sends nothing: what it makes is saved as a file.
// The challenge is the SHA-256 of the file, a statement's DSSE pre-authentication encoding (signatures/passkeys.py).

const party = document.querySelector('meta[name="relying-party"]').content;
const ES256 = -7, ED25519 = -8, RS256 = -257; // COSE algorithms, RFC 9053
const at = (id) => document.getElementById(id);
let statement = null;

const hex = (bytes) => [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const sha256 = (bytes) => crypto.subtle.digest("SHA-256", bytes);
const base64url = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

/** Return what a pre-authentication encoding says; throws where it is none (protocol.md of DSSE, v1). */
function payloadOf(bytes) {
  const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  const found = /^DSSEv1 (\d+) (\S+) (\d+) ([^]*)$/.exec(text);
  if (!found || found[2].length !== Number(found[1]) || new TextEncoder().encode(found[4]).length !== Number(found[3])) {
    throw new Error("this is no statement: choose the file that --print-statement wrote");
  }
  return JSON.parse(found[4]);
}

function* leaves(value, name = "") {
  if (value === null || typeof value !== "object") yield [name, String(value)];
  else for (const [key, inner] of Object.entries(value)) yield* leaves(inner, name ? `${name}.${key}` : key);
}

function offer(place, text, name, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content)], { type: "application/json" }));
  link.download = name;
  link.textContent = `Save ${name}`;
  place.className = "";
  place.replaceChildren(text, " ", link);
  link.focus();
}

function refuse(place, error) {
  place.className = "refused";
  place.textContent = error.message || String(error);
}

at("statement").addEventListener("change", async ({ target }) => {
  statement = null;
  at("said").hidden = true;
  at("signed").replaceChildren();
  const [file] = target.files;
  if (!file) return;
  try {
    const bytes = await file.arrayBuffer();
    const rows = [...leaves(payloadOf(bytes))].map(([name, value]) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = name;
      row.append(head, Object.assign(document.createElement("td"), { textContent: value }));
      return row;
    });
    const digest = await sha256(bytes);
    at("digest").textContent = `sha256:${hex(digest)}`;
    at("fields").replaceChildren(...rows);
    at("said").hidden = false;
    statement = { name: file.name, digest };
  } catch (error) {
    refuse(at("signed"), error);
  }
});

at("sign").addEventListener("click", async () => {
  const { name, digest } = statement;
  try {
    const publicKey = { challenge: digest, rpId: party, userVerification: "required" };
    const { id, rawId, type, response } = await navigator.credentials.get({ publicKey });
    offer(at("signed"), `Signed. Give it to the command: --signature ${name}.sig`, `${name}.sig`, {
      id, rawId: base64url(rawId), type,
      response: {
        authenticatorData: base64url(response.authenticatorData),
        clientDataJSON: base64url(response.clientDataJSON),
        signature: base64url(response.signature),
      },
    });
  } catch (error) {
    refuse(at("signed"), error);
  }
});

/** Return the COSE key in authenticator data that carries no extensions (Web Authentication Level 3, section 6.1). */
function coseKey(data) {
  const view = new DataView(data), identity = 32 + 1 + 4 + 16;
  return data.slice(identity + 2 + view.getUint16(identity));
}

at("enrol").addEventListener("submit", async (event) => {
  event.preventDefault();
  const person = at("person").value;
  try {
    const { id, rawId, type, response } = await navigator.credentials.create({
      publicKey: {
        rp: { id: party, name: document.title },
        user: { id: new TextEncoder().encode(person), name: person, displayName: person },
        challenge: crypto.getRandomValues(new Uint8Array(32)),
        pubKeyCredParams: [ES256, ED25519, RS256].map((alg) => ({ type: "public-key", alg })),
        authenticatorSelection: { residentKey: "required", userVerification: "required" },
        attestation: "none",
      },
    });
    const fingerprint = hex(await sha256(coseKey(response.getAuthenticatorData())));
    offer(at("enrolled"), `Made. Tell its fingerprint by another channel: ${fingerprint}`, `${person}.passkey.json`, {
      id, rawId: base64url(rawId), type,
      response: {
        attestationObject: base64url(response.attestationObject),
        clientDataJSON: base64url(response.clientDataJSON),
      },
    });
  } catch (error) {
    refuse(at("enrolled"), error);
  }
});
