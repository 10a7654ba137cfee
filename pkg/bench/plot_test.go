package bench

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
	"testing"
)

// line is one subject of a plot: a value per category, NaN or 0 where there is none.
type line struct {
	name   string
	values []float64
}

// The plot's frame in pixels, and colours that differ in lightness too.
const (
	plotWidth, plotHeight            = 1040, 460
	left, right, top, bottom         = 70.0, 680.0, 40.0, 400.0
	legendX, legendStep              = 700.0, 22.0
	plotStyle                        = `font-family="sans-serif" font-size="13"`
	minDecadeSpan            float64 = 1
)

var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999", "#8b4513", "#4b0082"}

// plot draws lines over categories on a logarithmic scale, as SVG.
func plot(title, unit string, categories []string, lines []line) string {
	low, high := decades(lines)
	x := func(i int) float64 { return left + (right-left)*(float64(i)+0.5)/float64(len(categories)) }
	y := func(v float64) float64 { return bottom - (bottom-top)*(math.Log10(v)-low)/(high-low) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" %s>`+"\n", plotWidth, plotHeight, plotStyle)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	label(&b, left, 22, "start", title+", "+unit)
	axes(&b, categories, low, high, x, y)
	for i, l := range lines {
		draw(&b, l, colours[i%len(colours)], x, y)
		label(&b, legendX+18, top+legendStep*float64(i)+4, "start", l.name)
		fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="12" height="4" fill="%s"/>`+"\n", legendX, top+legendStep*float64(i)-2, colours[i%len(colours)])
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// axes marks 1, 2 and 5 of each decade, and every category.
func axes(b *strings.Builder, categories []string, low, high float64, x func(int) float64, y func(float64) float64) {
	for decade := low; decade <= high; decade++ {
		for _, step := range []float64{1, 2, 5} {
			v := step * math.Pow(10, decade)
			if math.Log10(v) > high {
				continue
			}
			fmt.Fprintf(b, `<path d="M%.1f %.1fH%.1f" stroke="#ddd"/>`+"\n", left, y(v), right)
			label(b, left-8, y(v)+4, "end", fmt.Sprintf("%g", v))
		}
	}
	for i, c := range categories {
		label(b, x(i), bottom+20+18*float64(i%2), "middle", c)
	}
}

func draw(b *strings.Builder, l line, colour string, x func(int) float64, y func(float64) float64) {
	path, move := "", "M"
	for i, v := range l.values {
		if math.IsNaN(v) || v <= 0 {
			move = "M"
			continue
		}
		path += fmt.Sprintf("%s%.1f %.1f", move, x(i), y(v))
		move = "L"
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", x(i), y(v), colour)
	}
	fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", path, colour)
}

func label(b *strings.Builder, x, y float64, anchor, text string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s">`, x, y, anchor)
	_ = xml.EscapeText(b, []byte(text))
	b.WriteString("</text>\n")
}

// decades are the powers of ten around all values.
func decades(lines []line) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, l := range lines {
		for _, v := range l.values {
			if v > 0 {
				low, high = min(low, math.Floor(math.Log10(v))), max(high, math.Ceil(math.Log10(v)))
			}
		}
	}
	if high-low < minDecadeSpan || math.IsInf(low, 0) {
		return min(low, 0), min(low, 0) + minDecadeSpan
	}
	return low, high
}

func TestPlotIsXML(t *testing.T) {
	svg := plot("a < b", "× floor", []string{"4 × 1", "64 × 110"}, []line{{"one", []float64{1, 25}}, {"gap & two", []float64{0, 3}}})
	if err := xml.Unmarshal([]byte(svg), new(struct{})); err != nil {
		t.Errorf("%v\n%s", err, svg)
	}
	if n := strings.Count(svg, "<circle"); n != 3 {
		t.Errorf("%d points, want 3", n)
	}
}
