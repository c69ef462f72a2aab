(function () {
  "use strict";
  var holder = document.getElementById("data"), box = document.getElementById("explore");
  if (!holder || !box || !window.HTMLCanvasElement) return;
  var D = JSON.parse(holder.textContent);
  var pick = box.querySelector("select"), canvas = box.querySelector("canvas");
  var out = box.querySelector("output"), whole = box.querySelector("button");
  var g = canvas.getContext("2d"), view = [0, D.span], drag = null, hover = null;
  D.series.forEach(function (s, i) {
    var o = document.createElement("option");
    o.value = i; o.textContent = s.name; pick.appendChild(o);
  });
  box.hidden = false;
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var ink;
  var L = 56, R = 10, T = 8, B = 24, LOSS = 44;
  function time(ms, seconds) {
    var how = { timeZone: D.zone, hourCycle: "h23", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" };
    if (seconds) how.second = "2-digit";
    return new Date(D.from + ms).toLocaleString("en-GB", how);
  }
  function delay(us) {
    return us < 1000 ? us + " µs" : us < 1e6 ? (us / 1000).toPrecision(3) + " ms" : (us / 1e6).toPrecision(3) + " s";
  }
  function round(v) {
    var p = Math.pow(10, Math.floor(Math.log10(v))), m = v / p;
    return (m <= 1 ? 1 : m <= 2 ? 2 : m <= 5 ? 5 : 10) * p;
  }
  function columns() {
    return D.series[pick.value || 0].columns.filter(function (c) { return c[1] > view[0] && c[0] < view[1]; });
  }
  function draw() {
    ink = dark.matches ? D.dark : D.light;
    var scale = window.devicePixelRatio || 1, W = canvas.clientWidth, H = canvas.clientHeight;
    canvas.width = W * scale; canvas.height = H * scale; g.setTransform(scale, 0, 0, scale, 0, 0);
    g.fillStyle = ink.paper; g.fillRect(0, 0, W, H);
    var cs = columns(), floor = H - B - LOSS - 8, top = 1;
    var x = function (ms) { return L + Math.max(0, Math.min(1, (ms - view[0]) / (view[1] - view[0]))) * (W - L - R); };
    cs.forEach(function (c) { if (c[2] !== null) top = Math.max(top, c[6]); });
    top *= 1.05;
    var y = function (us) { return floor - Math.min(1, us / top) * (floor - T); };
    g.font = "11px sans-serif"; g.textBaseline = "middle"; g.textAlign = "right";
    var step = round(top / 4);
    for (var v = 0; v <= top; v += step) {
      g.fillStyle = ink.grid; g.fillRect(L, y(v), W - L - R, 1);
      g.fillStyle = ink.text; g.fillText(v ? delay(v) : "0", L - 6, y(v));
    }
    cs.forEach(function (c) {
      var x0 = x(c[0]), w = Math.max(1, x(c[1]) - x0);
      if (c[2] === null) { g.fillStyle = ink.silence; g.fillRect(x0, T, w, floor - T); return; }
      [[6, ink.max], [5, ink.p99], [4, ink.p95]].forEach(function (b) {
        g.fillStyle = b[1]; g.fillRect(x0, y(c[b[0]]), w, y(c[2]) - y(c[b[0]]));
      });
      g.fillStyle = ink.median; g.fillRect(x0, y(c[3]) - 1, w, 2);
    });
    var most = 0.01;
    cs.forEach(function (c) { if (c[7]) most = Math.max(most, c[8] / c[7]); });
    var low = H - B;
    g.fillStyle = ink.axis; g.fillRect(L, low, W - L - R, 1);
    g.fillStyle = ink.text; g.fillText("lost", L - 6, low - 8); g.fillText((most > 0.099 ? Math.round(most * 100) : (most * 100).toPrecision(2)) + " %", L - 6, low - LOSS + 8);
    g.fillStyle = ink.lost;
    cs.forEach(function (c) {
      if (!c[7] || !c[8]) return;
      var h = Math.max(1, c[8] / c[7] / most * (LOSS - 4));
      g.fillRect(x(c[0]), low - h, Math.max(1, x(c[1]) - x(c[0])), h);
    });
    g.fillStyle = ink.text;
    var fine = view[1] - view[0] < 6e5;
    g.textAlign = "left"; g.fillText(time(view[0], fine), L, H - 10);
    g.textAlign = "right"; g.fillText(time(view[1], fine), W - R, H - 10);
    if (W > 640) { g.textAlign = "center"; g.fillText(time((view[0] + view[1]) / 2, fine), (L + W - R) / 2, H - 10); }
    if (drag) { g.globalAlpha = 0.15; g.fillStyle = ink.median; g.fillRect(Math.min(drag[0], drag[1]), T, Math.abs(drag[1] - drag[0]), H - B - T); g.globalAlpha = 1; }
    if (hover !== null) { g.fillStyle = ink.hover; g.fillRect(hover, T, 1, H - B - T); }
    whole.disabled = view[0] === 0 && view[1] === D.span;
  }
  function ms(px) { return view[0] + (px - L) / (canvas.clientWidth - L - R) * (view[1] - view[0]); }
  function place(e) {
    return Math.max(L, Math.min(canvas.clientWidth - R, e.clientX - canvas.getBoundingClientRect().left));
  }
  function tell(px) {
    var t = ms(px), c = columns().filter(function (c) { return c[0] <= t && c[1] > t; })[0];
    if (!c) { out.textContent = time(t, true) + ": nothing was measured"; return; }
    out.textContent = time(c[0], true) + ": " + (c[2] === null ? "no answer" :
      "median " + delay(c[3]) + ", 95 % within " + delay(c[4]) + ", 99 % within " + delay(c[5]) + ", largest " + delay(c[6])) +
      "; " + c[8] + " of " + c[7] + " lost";
  }
  canvas.addEventListener("pointerdown", function (e) { drag = [place(e), place(e)]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointermove", function (e) { hover = place(e); if (drag) drag[1] = hover; tell(hover); draw(); });
  canvas.addEventListener("pointerleave", function () { hover = null; draw(); });
  canvas.addEventListener("pointerup", function () {
    if (drag && Math.abs(drag[1] - drag[0]) > 6) {
      var a = ms(Math.min(drag[0], drag[1])), b = ms(Math.max(drag[0], drag[1]));
      view = [Math.max(0, a), Math.min(D.span, b)];
    }
    drag = null; draw();
  });
  function reset() { view = [0, D.span]; draw(); }
  canvas.addEventListener("dblclick", reset);
  whole.addEventListener("click", reset);
  pick.addEventListener("change", draw);
  window.addEventListener("resize", draw);
  dark.addEventListener("change", draw);
  draw();
})();
