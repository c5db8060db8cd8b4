/** The colours of groups. */

/** Of a point, so that one sees how many lie on each other. */
export const OPACITY = 0.8;

// Contrasts with the ground (WCAG 2.2, at least 3 for what must be seen), in turn: neighbours in hue differ in these.
const CONTRASTS = { light: [3.3, 5.5], dark: [3.6, 6] };
// --back of map.css
const GROUNDS = { light: [1, 1, 1], dark: [20 / 255, 22 / 255, 26 / 255] };

const luminance = (rgb) => rgb.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)).reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);

function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

function rgb(hue, saturation, lightness) {
  const reach = saturation * Math.min(lightness, 1 - lightness);
  return [0, 8, 4].map((k) => {
    const m = (k + hue / 30) % 12;
    return lightness - reach * Math.max(-1, Math.min(m - 3, 9 - m, 1));
  });
}

/** The colour of a group by its number, red, green and blue from 0 to 1: with enough contrast where it lies on the ground alone. */
export function colourOf(group, scheme) {
  const hue = (group * 137.508 + 210) % 360, ground = GROUNDS[scheme], wanted = CONTRASTS[scheme][group % 2];
  let [near, far] = scheme === "light" ? [1, 0] : [0, 1];
  for (let step = 0; step < 20; step++) {
    const middle = (near + far) / 2, seen = rgb(hue, 0.7, middle).map((c, k) => OPACITY * c + (1 - OPACITY) * ground[k]);
    if (contrast(seen, ground) < wanted) near = middle;
    else far = middle;
  }
  return rgb(hue, 0.7, far);
}
