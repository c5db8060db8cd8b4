/** Draw points by WebGL. */

import { OPACITY } from "./colours.js";

const VERTEX = `#define OPACITY ${OPACITY}
  attribute vec2 place; attribute vec3 tint; attribute float strength; uniform vec2 scale, middle; uniform float size; varying vec4 colour;
  void main() { gl_Position = vec4((place - middle) * scale, 0., 1.); gl_PointSize = size * (strength > 1.5 ? 2. : 1.); colour = vec4(tint, strength > 1.5 ? 1. : OPACITY * strength); if (strength == 0.) gl_Position = vec4(9., 9., 9., 1.); }`;
const FRAGMENT = `precision mediump float; varying vec4 colour;
  void main() { if (length(gl_PointCoord - .5) > .5) discard; gl_FragColor = vec4(colour.rgb * colour.a, colour.a); }`;

/** What draws the points, or null without WebGL; `strength` of a point is 0 if it is not shown, above 1 if it is chosen. */
export function painter(canvas, places, strength) {
  const gl = canvas.getContext("webgl", { antialias: false, preserveDrawingBuffer: true });
  if (!gl) return null;
  const n = strength.length, program = gl.createProgram(), at = {};
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source); gl.compileShader(shader); gl.attachShader(program, shader);
  }
  gl.linkProgram(program); gl.useProgram(program);
  const fill = (name, size, values) => { const b = gl.createBuffer(), a = gl.getAttribLocation(program, name); gl.bindBuffer(gl.ARRAY_BUFFER, b); gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW); gl.enableVertexAttribArray(a); gl.vertexAttribPointer(a, size, gl.FLOAT, false, 0, 0); return b; };
  fill("place", 2, places);
  const tints = fill("tint", 3, new Float32Array(3 * n)), strengths = fill("strength", 1, strength);
  for (const name of ["scale", "middle", "size"]) at[name] = gl.getUniformLocation(program, name);
  gl.enable(gl.BLEND); gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  return {
    /** Give each point the colour of its group, as red, green and blue from 0 to 1. */
    tint(numbers, colours) {
      const values = new Float32Array(3 * n);
      for (let i = 0; i < n; i++) values.set(colours[numbers[i]], 3 * i);
      gl.bindBuffer(gl.ARRAY_BUFFER, tints); gl.bufferSubData(gl.ARRAY_BUFFER, 0, values);
    },
    choose() { gl.bindBuffer(gl.ARRAY_BUFFER, strengths); gl.bufferSubData(gl.ARRAY_BUFFER, 0, strength); },
    paint(view, scale) {
      const ratio = devicePixelRatio || 1;
      const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height]; // takes new memory
      gl.viewport(0, 0, canvas.width, canvas.height); gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2fv(at.scale, scale); gl.uniform2f(at.middle, view.x, view.y);
      gl.uniform1f(at.size, ratio * Math.min(12, Math.max(2.5, 160 / Math.sqrt(n)) * Math.sqrt(view.zoom)));
      gl.drawArrays(gl.POINTS, 0, n);
    },
    end() { gl.getExtension("WEBGL_lose_context")?.loseContext(); },
  };
}
