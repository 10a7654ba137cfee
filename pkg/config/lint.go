package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Lint reads the configuration at opts.Path as Load does, and warns besides of what is accepted and most likely not meant:
// prefixes without effect, and ranges of the cluster that would be masqueraded. A manifest of a ConfigMap is read by its data.
func Lint(opts Options, ranges []Range) (Config, []Finding, error) {
	r := &report{}
	var files []file
	for _, path := range sources(opts, r) {
		if data, err := readFile(path); err != nil {
			r.system(path, "cannot be read", err)
		} else {
			files = append(files, decodeAny(path, data, opts, r)...)
		}
	}
	return r.lint(files, opts, ranges)
}

// LintText is Lint for the bytes of one file, which need not exist.
func LintText(name string, data []byte, opts Options, ranges []Range) (Config, []Finding, error) {
	r := &report{}
	return r.lint(decodeAny(name, data, opts, r), opts, ranges)
}

func (r *report) lint(files []file, opts Options, ranges []Range) (Config, []Finding, error) {
	m := merge(files, opts, r)
	if err := r.err(); err != nil {
		return Config{}, r.findings, err
	}
	first := len(r.findings)
	m.advise(opts, ranges, r)
	slices.SortStableFunc(r.findings[first:], func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return m.config, r.findings, nil
}

// ConfigMapKey is the key of the ConfigMap that the manifests mount as the configuration file.
const ConfigMapKey = "config"

// decodeAny reads a file, or the data of the ConfigMaps in a manifest.
func decodeAny(name string, data []byte, opts Options, r *report) []file {
	maps := configMaps(data)
	if len(maps) == 0 {
		return []file{decode(name, data, opts, r)}
	}
	var files []file
	for _, m := range maps {
		files = append(files, m.decode(name, opts, r)...)
	}
	return files
}

// configMap is one in a manifest: the nodes of its data, by key.
type configMap struct {
	manifest []byte
	at       position
	data     map[string]*yaml.Node
}

// configMaps finds the ConfigMaps of a manifest; none where the text is something else.
func configMaps(data []byte) []configMap {
	var found []configMap
	for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var document yaml.Node
		if err := decoder.Decode(&document); errors.Is(err, io.EOF) || err != nil {
			return found
		}
		if len(document.Content) == 0 {
			continue
		}
		root := children(document.Content[0])
		if kind := root["kind"]; kind == nil || kind.Value != "ConfigMap" || root["apiVersion"] == nil {
			continue
		}
		m := configMap{manifest: data, at: positionOfNode(document.Content[0]), data: map[string]*yaml.Node{}}
		if root["data"] != nil {
			m.data = children(root["data"])
		}
		found = append(found, m)
	}
}

func children(mapping *yaml.Node) map[string]*yaml.Node {
	values := map[string]*yaml.Node{}
	for i := 0; mapping.Kind == yaml.MappingNode && i+1 < len(mapping.Content); i += 2 {
		values[mapping.Content[i].Value] = mapping.Content[i+1]
	}
	return values
}

// decode reads the key that the manifests mount; with any other the agent would see no file and use the defaults.
func (m configMap) decode(name string, opts Options, r *report) []file {
	value, there := m.data[ConfigMapKey]
	if !there {
		r.errorf(place{file: name, position: m.at}, "the ConfigMap has no key %q but %s, so the agent would find no file and use the defaults: rename the key to %q",
			ConfigMapKey, keysOf(m.data), ConfigMapKey)
		return nil
	}
	// In a block ("config: |") every line of the text is a line of the manifest, further to the right. In a quoted string the
	// lines are not told apart, and columns mean nothing.
	move := func(p *position) { *p = position{line: value.Line} }
	if value.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		indent := indentOfLine(m.manifest, value.Line+1)
		move = func(p *position) { p.line, p.column = p.line+value.Line, p.column+indent }
	}
	first := len(r.findings)
	f := decode(name, []byte(value.Value), opts, r)
	for _, p := range f.places() {
		move(&p.position)
	}
	for i, finding := range r.findings[first:] {
		at := position{finding.Line, finding.Column}
		move(&at)
		r.findings[first+i].Line, r.findings[first+i].Column = at.line, at.column
	}
	return []file{f}
}

// indentOfLine counts the spaces at the beginning of a line, or of the first one after it that is not blank.
func indentOfLine(data []byte, line int) int {
	text := data[len(firstLines(data, line-1)):]
	for one := range bytes.Lines(text) {
		if len(bytes.TrimSpace(one)) > 0 {
			return len(one) - len(bytes.TrimLeft(one, " "))
		}
	}
	return 0
}

func keysOf(data map[string]*yaml.Node) string {
	if len(data) == 0 {
		return "no data at all"
	}
	var quoted []string
	for _, key := range slices.Sorted(maps.Keys(data)) {
		quoted = append(quoted, fmt.Sprintf("%q", key))
	}
	return strings.Join(quoted, ", ")
}
