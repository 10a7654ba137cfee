package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	yamlnodes "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// position is a place in one file, counted from 1; the zero value is unknown.
type position struct{ line, column int }

// place is a position, the file that it is in, and the key that it belongs to.
type place struct {
	file string
	position
	key string
}

// seenFrom names the place for a message about another one, which need not repeat the file that both share.
func (p place) seenFrom(other place) string {
	if p.file == other.file {
		return fmt.Sprintf("line %d", p.line)
	}
	return fmt.Sprintf("%s:%d", p.file, p.line)
}

// cursor translates byte offsets into positions. It only moves forward, so that a list of 100,000 items in one line
// does not count that line 100,000 times.
type cursor struct {
	data   []byte
	offset int
	at     position
}

func newCursor(data []byte) *cursor { return &cursor{data: data, at: position{1, 1}} }

// moveTo returns the position of the byte at offset, which must not be before the last one asked for.
func (c *cursor) moveTo(offset int) position {
	passed := c.data[c.offset:offset]
	if newlines := bytes.Count(passed, []byte("\n")); newlines > 0 {
		c.at = position{c.at.line + newlines, 1}
		passed = passed[bytes.LastIndexByte(passed, '\n')+1:]
	}
	c.at.column += utf8.RuneCount(passed)
	c.offset = offset
	return c.at
}

func positionOf(data []byte, offset int) position { return newCursor(data).moveTo(offset) }

// outline says where in a file its keys stand. The values come from another decoder, the one that Kubernetes uses, which
// knows no places.
type outline []entry

// entry is one key with its place and that of its value. Of a mapping inside the file, key is its whole name, such as
// egress[0].destinations.
type entry struct {
	key   string
	at    position
	value spot
}

// spot is the place of a value, and of what is inside: of a list its items, of a mapping its keys.
type spot struct {
	at    position
	items []spot
	keys  outline
}

// item returns the place of a list's item i.
func (s spot) item(i int) spot {
	if i < len(s.items) {
		return s.items[i]
	}
	return spot{at: s.at}
}

// syntaxError means that a file could not be taken apart into keys and values.
type syntaxError struct {
	at      position
	message string
}

func (e *syntaxError) Error() string { return e.message }

func syntaxErrorf(at position, format string, args ...any) error {
	return &syntaxError{at, fmt.Sprintf(format, args...)}
}

// takeApart returns the file's keys with their places, and their values.
func takeApart(data []byte) (keys outline, values map[string]any, err error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if offset := invalidUTF8(data); offset >= 0 {
		return nil, nil, syntaxErrorf(positionOf(data, offset), "the file is not valid UTF-8: byte 0x%02x", data[offset])
	}
	text := data
	if isJSON(data) {
		keys, err = outlineJSON(data)
	} else if keys, err = outlineYAML(data); err == nil {
		if text, err = yaml.YAMLToJSON(data); err != nil {
			err = yamlError(data, err)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	values, err = decodeValues(text)
	return keys, values, err
}

// isJSON tells the two formats apart as Kubernetes does.
func isJSON(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeftFunc(data, unicode.IsSpace), []byte("{"))
}

// decodeValues keeps numbers as they were written and keys in their letter case: encoding/json would match the fields of a
// struct in any.
func decodeValues(text []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var values map[string]any
	if err := decoder.Decode(&values); err != nil {
		return nil, fmt.Errorf("the file could not be decoded: %w", err)
	}
	return values, nil
}

// invalidUTF8 returns the offset of the first byte that is not UTF-8, or -1.
func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	for offset := 0; offset < len(data); {
		r, size := utf8.DecodeRune(data[offset:])
		if r == utf8.RuneError && size == 1 {
			return offset
		}
		offset += size
	}
	return -1
}

// outlineJSON finds the places of the keys in a JSON text that holds one object.
func outlineJSON(data []byte) (outline, error) {
	var syntax *json.SyntaxError
	if err := json.Unmarshal(data, new(json.RawMessage)); errors.As(err, &syntax) {
		// The offset counts the bytes read, the offending one included, unless the text ended too early.
		at := positionOf(data, max(int(syntax.Offset)-1, 0))
		return nil, syntaxErrorf(at, "invalid JSON (a file that begins with { is read as JSON): %s", syntax)
	}
	w := &jsonWalker{decoder: json.NewDecoder(bytes.NewReader(data)), cursor: newCursor(data)}
	w.decoder.UseNumber()
	return w.object()
}

// jsonWalker walks the tokens of a text whose syntax is known to be right.
type jsonWalker struct {
	decoder *json.Decoder
	cursor  *cursor
	end     int
}

// next returns the next token and its place. The decoder only tells where a token ends; between two of them there is
// nothing but white space and separators.
func (w *jsonWalker) next() (json.Token, position, error) {
	token, err := w.decoder.Token()
	gap := w.cursor.data[w.end:]
	start := w.end + len(gap) - len(bytes.TrimLeft(gap, " \t\r\n,:"))
	w.end = int(w.decoder.InputOffset())
	return token, w.cursor.moveTo(start), err
}

func (w *jsonWalker) object() (outline, error) {
	root, err := w.value()
	return root.keys, err
}

// value passes one value.
func (w *jsonWalker) value() (s spot, err error) {
	token, at, err := w.next()
	s.at = at
	if err != nil || token != json.Delim('[') && token != json.Delim('{') {
		return s, err
	}
	for w.decoder.More() {
		if token == json.Delim('[') {
			item, err := w.value()
			if err != nil {
				return s, err
			}
			s.items = append(s.items, item)
			continue
		}
		key, at, err := w.next()
		if err != nil {
			return s, err
		}
		e := entry{at: at}
		e.key, _ = key.(string)
		if e.value, err = w.value(); err != nil {
			return s, err
		}
		s.keys = append(s.keys, e)
	}
	_, _, err = w.next()
	return s, err
}

// outlineYAML finds the places of the keys in a YAML text of at most one document.
func outlineYAML(data []byte) (outline, error) {
	if offset := bytes.IndexFunc(data, isControl); offset >= 0 {
		return nil, syntaxErrorf(positionOf(data, offset), "control character %U is not allowed", data[offset])
	}
	decoder := yamlnodes.NewDecoder(bytes.NewReader(data))
	var document, second yamlnodes.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, yamlError(data, err)
	}
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
		return outlineNode(document.Content[0])
	case err != nil:
		return nil, yamlError(data, err)
	}
	return nil, syntaxErrorf(positionOfNode(&second), "a second document begins here: keep one document in the file")
}

func isControl(r rune) bool {
	return r == 0x7f || r < ' ' && r != '\t' && r != '\n' && r != '\r'
}

// outlineNode finds the places of the keys of a document's root.
func outlineNode(root *yamlnodes.Node) (outline, error) {
	switch {
	case root.ShortTag() == "!!null":
		return nil, nil
	case root.Kind != yamlnodes.MappingNode:
		return nil, syntaxErrorf(positionOfNode(root), `the file holds no keys: write them as in "masqLinkLocal: true"`)
	}
	return make(nodeWalker).keys(root)
}

// nodeWalker remembers what is inside of nodes, because an alias may name one many times, and one inside of itself too.
type nodeWalker map[*yamlnodes.Node]spot

// keys finds the places of the keys of a mapping.
func (w nodeWalker) keys(mapping *yamlnodes.Node) (outline, error) {
	var keys outline
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		if key.Kind != yamlnodes.ScalarNode {
			return nil, syntaxErrorf(positionOfNode(key), "a key must be a single word")
		}
		e := entry{key: key.Value, at: positionOfNode(key)}
		var err error
		if e.value, err = w.value(value); err != nil {
			return nil, err
		}
		keys = append(keys, e)
	}
	return keys, nil
}

// value is where a node stands, and what is inside of the one that it means.
func (w nodeWalker) value(n *yamlnodes.Node) (spot, error) {
	meant := n
	if n.Kind == yamlnodes.AliasNode {
		meant = n.Alias
	}
	s := spot{at: positionOfNode(n)}
	if meant.Kind != yamlnodes.SequenceNode && meant.Kind != yamlnodes.MappingNode {
		return s, nil
	}
	inside, known := w[meant]
	if !known {
		w[meant] = spot{} // for an alias inside
		var err error
		if inside, err = w.inside(meant); err != nil {
			return s, err
		}
		w[meant] = inside
	}
	s.items, s.keys = inside.items, inside.keys
	return s, nil
}

func (w nodeWalker) inside(n *yamlnodes.Node) (s spot, err error) {
	if n.Kind == yamlnodes.MappingNode {
		s.keys, err = w.keys(n)
		return s, err
	}
	s.items = make([]spot, 0, len(n.Content))
	for _, item := range n.Content {
		place, err := w.value(item)
		if err != nil {
			return s, err
		}
		s.items = append(s.items, place)
	}
	return s, nil
}

func positionOfNode(n *yamlnodes.Node) position { return position{n.Line, n.Column} }

// yamlError gives the YAML libraries' error a place. They only have it in the text, and what they call line N is the line
// before where a token is grammatically out of place. It is N if the file's first N lines alone give the same error.
func yamlError(data []byte, err error) error {
	reported, message := splitYAMLError(err)
	line := max(reported, 1)
	var ignored yamlnodes.Node
	if _, again := splitYAMLError(yamlnodes.Unmarshal(firstLines(data, line), &ignored)); again != message {
		line = 0
		if reported > 0 {
			line = reported + 1
		}
	}
	if indentedByTab(data, line) {
		message = "a tab indents this line: YAML wants spaces"
	}
	return syntaxErrorf(position{line: line}, "invalid YAML: %s", message)
}

// splitYAMLError takes the text "yaml: line N: message" apart, N being 0 where it has none.
func splitYAMLError(err error) (line int, message string) {
	if err == nil {
		return 0, ""
	}
	message = strings.TrimPrefix(err.Error(), "yaml: ")
	if first, rest, found := strings.Cut(message, ": "); found {
		if _, err := fmt.Sscanf(first, "line %d", &line); err == nil {
			return line, rest
		}
	}
	return 0, message
}

func firstLines(data []byte, count int) []byte {
	end := 0
	for ; count > 0; count-- {
		newline := bytes.IndexByte(data[end:], '\n')
		if newline < 0 {
			return data
		}
		end += newline + 1
	}
	return data[:end]
}

func indentedByTab(data []byte, line int) bool {
	if line == 0 {
		return false
	}
	text := data[len(firstLines(data, line-1)):]
	indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]
	return bytes.IndexByte(indent, '\t') >= 0
}
