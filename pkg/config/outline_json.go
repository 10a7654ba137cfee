package config

import (
	"bytes"
	"encoding/json"
	"errors"
)

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
	if _, _, err := w.next(); err != nil {
		return nil, err
	}
	var keys outline
	for w.decoder.More() {
		token, at, err := w.next()
		if err != nil {
			return nil, err
		}
		e := entry{at: at}
		e.key, _ = token.(string)
		if e.value, e.items, err = w.value(); err != nil {
			return nil, err
		}
		keys = append(keys, e)
	}
	return keys, nil
}

// value passes one value and returns its place, and those of what is directly inside.
func (w *jsonWalker) value() (at position, items []position, err error) {
	token, at, err := w.next()
	if err != nil || token != json.Delim('[') && token != json.Delim('{') {
		return at, nil, err
	}
	for w.decoder.More() {
		item, _, err := w.value()
		if err != nil {
			return at, nil, err
		}
		items = append(items, item)
	}
	_, _, err = w.next()
	return at, items, err
}
