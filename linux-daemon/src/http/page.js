"use strict";
(function () {
  var KEPT = 3600, LEAST = 300, cards = {}, history = {}, last = 0;
  var $ = function (id) { return document.getElementById(id); };
  function node(tag, text, name) {
    var e = document.createElement(tag);
    if (text !== undefined) e.textContent = text;
    if (name) e.className = name;
    return e;
  }
  function delay(ns) {
    if (ns === null || ns === undefined) return "–";
    return ns < 9950 ? (ns / 1e3).toFixed(1) + " µs" : ns < 999500 ? (ns / 1e3).toFixed(0) + " µs" : ns < 1e8 ? (ns / 1e6).toFixed(1) + " ms" : ns < 1e9 ? (ns / 1e6).toFixed(0) + " ms" : (ns / 1e9).toFixed(2) + " s";
  }
  function rate(bps) {
    if (bps === null || bps === undefined) return "–";
    return bps < 1e6 ? (bps / 1e3).toFixed(0) + " kbit/s" : (bps / 1e6).toFixed(1) + " Mbit/s";
  }
  function stretch(s) {
    return s < 60 ? s + " s" : s < 3600 ? Math.floor(s / 60) + " min" : s < 86400 ? Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min" : Math.floor(s / 86400) + " d " + Math.floor(s % 86400 / 3600) + " h";
  }
  function key(s) { return s.interface + "|" + s.target + "|" + s.kind + s.family + "|" + s.address; }
  function card(s) {
    var c = cards[key(s)];
    if (c) return c;
    c = cards[key(s)] = { box: node("article"), cells: {} };
    c.box.appendChild(node("h3", s.interface + " → " + s.target));
    c.box.appendChild(node("p", s.kind + s.family + " to " + s.address + ", every " + (s.interval_ns < 1e9 ? s.interval_ns / 1e6 + " ms" : s.interval_ns / 1e9 + " s"), "how"));
    var list = node("dl");
    [["rtt", "RTT"], ["up", "queue up"], ["down", "queue down"], ["lost", "lost, 1 min"], ["hour", "lost, 1 h"]].forEach(function (f) {
      var pair = node("div");
      pair.appendChild(node("dt", f[1]));
      pair.appendChild(c.cells[f[0]] = node("dd", "–"));
      list.appendChild(pair);
    });
    c.box.appendChild(list);
    c.canvas = node("canvas");
    c.canvas.setAttribute("role", "img");
    c.box.appendChild(c.canvas);
    c.key = node("p", undefined, "key");
    c.box.appendChild(c.key);
    $("series").appendChild(c.box);
    return c;
  }
  function share(seconds) {
    var sent = 0, lost = 0, unsent = 0;
    seconds.forEach(function (x) { sent += x.sent; lost += x.lost; unsent += x.unsent; });
    var tried = sent + unsent, gone = lost + unsent;
    return { text: tried ? (gone && gone / tried < 0.001 ? "<0.1" : (gone / tried * 100).toFixed(gone && gone < tried ? 1 : 0)) + " %" : "–", bad: tried && gone / tried > 0.01 };
  }
  function css(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
  // What the curves span: the hour, or as much of it as there is to show.
  function span() {
    var longest = LEAST;
    Object.keys(history).forEach(function (k) { longest = Math.max(longest, history[k].length); });
    return Math.min(longest, KEPT);
  }
  function draw(c, seconds, wide) {
    var scale = window.devicePixelRatio || 1, W = c.canvas.clientWidth, H = c.canvas.clientHeight, g = c.canvas.getContext("2d");
    if (!W) return;
    c.canvas.width = W * scale; c.canvas.height = H * scale; g.setTransform(scale, 0, 0, scale, 0, 0);
    g.clearRect(0, 0, W, H);
    var left = 46, foot = H - 16, width = W - left;
    var both = seconds.some(function (x) { return x.queue_up_ns !== null && x.queue_up_ns !== undefined; });
    var lines = both ? [["queue_down_ns", "--down"], ["queue_up_ns", "--up"]] : [["rtt_ns", "--rtt"]];
    // A column of pixels shows the worst of its seconds; nothing is drawn over a gap.
    var columns = Math.max(1, Math.floor(width)), worst = lines.map(function () { return new Array(columns); }), gone = new Array(columns), top = 1e6;
    seconds.forEach(function (x, i) {
      var at = columns - 1 - Math.floor((seconds.length - 1 - i) * columns / wide);
      lines.forEach(function (l, n) {
        var v = x[l[0]];
        if (v === null || v === undefined || x.received === 0) return;
        worst[n][at] = Math.max(worst[n][at] || 0, v); top = Math.max(top, v);
      });
      if (x.lost + x.unsent) gone[at] = (gone[at] || 0) + (x.lost + x.unsent) / Math.max(1, x.sent + x.unsent);
    });
    // A round figure, so that half of it is one too.
    var digit = Math.pow(10, Math.floor(Math.log10(top)));
    top = [1, 2, 4, 6, 8, 10].map(function (n) { return n * digit; }).find(function (v) { return v >= top; }) * 1.1;
    var y = function (v) { return foot - v / top * (foot - 6); };
    g.font = "10px sans-serif"; g.textBaseline = "middle"; g.textAlign = "right";
    [0, 0.5, 1].forEach(function (f) {
      var v = top / 1.1 * f;
      g.fillStyle = css("--line"); g.fillRect(left, Math.round(y(v)), width, 1);
      g.fillStyle = css("--soft"); g.fillText(f ? delay(v) : "0", left - 5, Math.max(6, y(v)));
    });
    gone.forEach(function (n, at) { g.fillStyle = css("--bad"); g.globalAlpha = Math.min(1, 0.25 + n); g.fillRect(left + at, 2, 1, foot - 2); g.globalAlpha = 1; });
    lines.forEach(function (l, n) {
      g.strokeStyle = css(l[1]); g.lineWidth = 1.4; g.beginPath();
      var open = 0, step = Math.max(3, Math.ceil(columns / wide * 3));
      for (var at = 0; at < columns; at++) {
        if (worst[n][at] === undefined) { open--; continue; }
        if (open > 0) g.lineTo(left + at, y(worst[n][at])); else { g.moveTo(left + at, y(worst[n][at])); g.lineTo(left + at + 0.6, y(worst[n][at])); }
        open = step;
      }
      g.stroke();
    });
    g.fillStyle = css("--soft"); g.textAlign = "left"; g.fillText(wide === KEPT ? "an hour ago" : stretch(wide) + " ago", left, H - 6); g.textAlign = "right"; g.fillText("now", W, H - 6);
    var words = (both ? [["up", "queue up"], ["down", "queue down"]] : [["rtt", "RTT"]]).concat([["lost", "lost"]]);
    if (c.words !== words.join()) {
      c.words = words.join(); c.key.textContent = "";
      words.forEach(function (w) { var b = node("b", undefined, w[0]); b.appendChild(node("i")); b.appendChild(document.createTextNode(w[1])); c.key.appendChild(b); });
      c.canvas.setAttribute("aria-label", "Now and before: " + words.map(function (w) { return w[1]; }).join(", "));
    }
  }
  function show(now) {
    last = Date.now();
    $("link").textContent = ""; $("link").className = "";
    var load = (now.load || []).map(function (l) { return l.interface + " ↑ " + rate(l.up_bps) + " ↓ " + rate(l.down_bps); });
    $("daemon").textContent = ["version " + now.version, "up " + stretch(now.uptime_s), (now.resident_bytes / 1048576).toFixed(1) + " MiB",
      now.store.full ? "THE DISK IS FULL" : "store " + (now.store.file_bytes / 1048576).toFixed(1) + " MiB"].concat(load).join(" · ");
    var troubles = now.troubles || [];
    $("troubles").hidden = !troubles.length; $("troubles").textContent = "";
    troubles.forEach(function (t) { $("troubles").appendChild(node("li", t)); });
    var there = {}, wide = span();
    now.series.forEach(function (s) {
      var k = key(s), seconds = history[k] = history[k] || [], c = card(s), x = s.last_second;
      there[k] = true;
      seconds.push(x); if (seconds.length > KEPT) seconds.shift();
      c.cells.rtt.textContent = x.received ? delay(x.rtt_ns) : x.sent + x.unsent ? "none" : "–";
      c.cells.rtt.className = !x.received && x.sent + x.unsent ? "bad" : "";
      // What is never told takes no room.
      if (x.queue_up_ns !== null && x.queue_up_ns !== undefined) c.directed = true;
      c.cells.up.parentNode.hidden = c.cells.down.parentNode.hidden = !c.directed;
      c.cells.up.textContent = delay(x.queue_up_ns); c.cells.down.textContent = delay(x.queue_down_ns);
      [["lost", 60], ["hour", KEPT]].forEach(function (f) {
        var said = share(seconds.slice(-f[1]));
        c.cells[f[0]].textContent = said.text; c.cells[f[0]].className = said.bad ? "bad" : "";
      });
      draw(c, seconds, wide);
    });
    Object.keys(cards).forEach(function (k) { if (!there[k]) { cards[k].box.remove(); delete cards[k]; delete history[k]; } });
    var events = now.events || [];
    $("happened").hidden = !events.length; $("events").textContent = "";
    events.slice().reverse().forEach(function (e) {
      var li = node("li", undefined, e.severity), t = node("time", e.at_ns ? new Date(e.at_ns / 1e6).toLocaleString() : "");
      li.appendChild(t); li.appendChild(node("b", e.kind.replace(/_/g, " ")));
      li.appendChild(document.createTextNode((e.interface ? " " + e.interface : "") + ": " + e.text + (e.ongoing ? " (still going on)" : "")));
      $("events").appendChild(li);
    });
  }
  // The hour as the daemon has it: what a page that was cut off or asleep has missed, too.
  function past() {
    return fetch("api/history").then(function (r) { return r.json(); }).then(function (h) { history = h; }).catch(function () {});
  }
  function follow() {
    var source = new EventSource("api/events");
    source.onopen = function () { if (last) past(); };
    source.onmessage = function (m) { show(JSON.parse(m.data)); };
  }
  setInterval(function () {
    if (last && Date.now() - last > 4000) { $("link").textContent = "no word from the daemon for " + stretch(Math.round((Date.now() - last) / 1000)); $("link").className = "lost"; }
  }, 1000);
  past().then(follow);
})();
