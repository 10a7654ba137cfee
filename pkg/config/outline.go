package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode"
	"unicode/utf8"

	"sigs.k8s.io/yaml"
)

// outline says where in a file its keys stand. The values come from another decoder, the one that Kubernetes uses, which
// knows no places.
type outline []entry

// entry is one key of the file with the places of its value and, where that is a list, of the list's items.
type entry struct {
	key       string
	at, value position
	items     []position
}

// item returns the place of the list's item i.
func (e entry) item(i int) position {
	if i < len(e.items) {
		return e.items[i]
	}
	return e.value
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
func takeApart(data []byte) (outline, map[string]any, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if offset := invalidUTF8(data); offset >= 0 {
		return nil, nil, syntaxErrorf(positionOf(data, offset), "the file is not valid UTF-8: byte 0x%02x", data[offset])
	}
	if isJSON(data) {
		return takeApartJSON(data)
	}
	keys, err := outlineYAML(data)
	if err != nil {
		return nil, nil, err
	}
	converted, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, nil, yamlError(data, err)
	}
	values, err := decodeValues(converted)
	return keys, values, err
}

func takeApartJSON(data []byte) (outline, map[string]any, error) {
	keys, err := outlineJSON(data)
	if err != nil {
		return nil, nil, err
	}
	values, err := decodeValues(data)
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
