"use strict";
// The form comes from /openapi.json, so that it has what the server takes. What people write is shown as text, never as HTML.

const $ = id => document.getElementById(id);
const RUN = "/run";
let api, running = null;

const resolve = node => (node.$ref ? resolve(api.components.schemas[node.$ref.split("/").pop()]) : node);
const endpoints = () => Object.keys(api.paths).filter(path => api.paths[path].post && /\/(text|video)-to-video$/.test(path) && !path.startsWith(RUN));
const fields = () => resolve(api.paths[$("endpoint").value].post.requestBody.content["application/json"].schema);
const pause = ms => new Promise(done => setTimeout(done, ms));

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function control(name, field, required) {
  const plain = (field.anyOf || []).map(resolve).find(each => each.type !== "null" && !each.properties) || field;
  const common = { id: name, name, required: required ? "" : undefined, "aria-describedby": `${name}-help` };
  if (name === "video_url") return element("input", { ...common, type: "file", accept: "video/*" });
  if (plain.enum) {
    const options = [["", "the model's own"], ...plain.enum.map(each => [each, each]), ["custom", "width x height"]];
    const size = axis => element("input", { id: axis, type: "number", min: 64, max: 2048, step: 8, "aria-label": axis, placeholder: axis });
    const select = element("select", common, ...options.map(([value, text]) => element("option", { value }, text)));
    const custom = element("span", { hidden: "" }, " ", size("width"), " x ", size("height"));
    select.addEventListener("change", () => { custom.hidden = select.value !== "custom"; });
    return element("span", {}, select, custom);
  }
  if (plain.type === "string") return element("textarea", { ...common, maxlength: plain.maxLength, placeholder: field.default });
  return element("input", { ...common, type: "number", min: plain.minimum, max: plain.maximum, step: plain.type === "integer" ? 1 : "any", placeholder: field.default ?? "random" });
}

function build() {
  const { properties, required } = fields();
  $("fields").replaceChildren(...Object.entries(properties).map(([name, field]) => element("p", {},
    element("label", { for: name }, name.replaceAll("_", " ")), control(name, field, required.includes(name)), " ",
    element("small", { id: `${name}-help` }, field.description || ""))));
  programs();
}

function given() {
  const body = {};
  for (const [name, field] of Object.entries(fields().properties)) {
    const value = $(name).value;
    if (name === "video_url") body[name] = value ? "https://.../video.mp4" : "";
    else if (value === "") continue;
    else if (value === "custom") body[name] = { width: Number($("width").value) || 512, height: Number($("height").value) || 512 };
    else body[name] = $(name).type === "number" ? Number(value) : value;
  }
  return body;
}

function programs() {
  const path = $("endpoint").value, json = JSON.stringify(given(), null, 2), here = location.origin, host = location.host;
  const shell = json.replaceAll("'", `'\\''`);
  $("curl").textContent = `curl --request POST \\\n  --url ${here}${RUN}${path} \\\n  --header "Authorization: Key $FAL_KEY" \\\n  --header "Content-Type: application/json" \\\n  --data '${shell}'`;
  $("python").textContent = `# FAL_QUEUE_RUN_HOST=${host} FAL_KEY=... python this.py\nimport json\nimport fal_client\n\nresult = fal_client.subscribe("${path.slice(1)}", arguments=json.loads(r'''${json.replaceAll("'", "\\u0027")}'''), with_logs=True)\nprint(result)`;
  $("javascript").textContent = `import { fal } from "@fal-ai/client";\n\nfal.config({ requestMiddleware: async request => ({ ...request, url: request.url.replace("https://queue.fal.run", "${here}") }) });\nconst result = await fal.subscribe("${path.slice(1)}", { input: ${json}, logs: true });\nconsole.log(result.data);`;
}

function tell(text, state = "") {
  $("state").textContent = text;
  $("state").dataset.state = state;
}

async function call(method, path, body) {
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = `Key ${$("key").value}`;
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  const found = await answer.json();
  if (answer.ok) return found;
  const detail = Array.isArray(found.detail) ? found.detail.map(each => `${each.loc.slice(1).join(".")}: ${each.msg}`).join("; ") : found.detail;
  throw new Error(detail || `HTTP ${answer.status}`);
}

async function upload(file) {
  const { upload_url, file_url } = await call("POST", "/storage/upload/initiate", {});
  const put = await fetch(upload_url, { method: "PUT", body: file });
  if (!put.ok) throw new Error(`The video could not be uploaded (HTTP ${put.status}).`);
  return file_url;
}

function progress(status) {
  const last = (status.logs || []).at(-1)?.message || "", step = last.match(/(\d+)\/(\d+)/);
  $("progress").hidden = false;
  if (step) { $("progress").max = Number(step[2]); $("progress").value = Number(step[1]); } else $("progress").removeAttribute("value");
  tell(status.status === "IN_QUEUE" ? `Queued, ${status.queue_position} before it` : step ? `Step ${step[1]} of ${step[2]}` : "Running");
}

async function generate() {
  const body = given();
  if ("video_url" in body) body.video_url = await upload($("video_url").files[0]);
  const base = (await call("POST", $("endpoint").value, body));
  running = new URL(base.response_url).pathname;
  $("cancel").hidden = false;
  for (let status; (status = await call("GET", `${running}/status?logs=1`)).status !== "COMPLETED";) { progress(status); await pause(400); }
  const { video, seed } = await call("GET", running), file = new URL(video.url).pathname;
  $("video").src = $("download").href = file;
  $("shown-seed").textContent = seed;
  $("result").hidden = false;
  tell("Done");
  $("video").play().catch(() => {});
}

$("form").addEventListener("submit", async event => {
  event.preventDefault();
  $("generate").disabled = true;
  $("result").hidden = true;
  tell("Sending");
  try { await generate(); } catch (error) { tell(error.message, "error"); }
  running = null;
  $("generate").disabled = false;
  $("cancel").hidden = $("progress").hidden = true;
});
$("cancel").addEventListener("click", () => running && call("PUT", `${running}/cancel`).catch(error => tell(error.message, "error")));
$("form").addEventListener("input", event => (event.target.id === "endpoint" ? build() : programs()));

fetch("/openapi.json").then(answer => answer.json()).then(found => {
  api = found;
  $("endpoint").replaceChildren(...endpoints().map(path => element("option", { value: path }, path.split("/").pop())));
  build();
}).catch(() => tell("The server does not answer; load this page again.", "error"));
