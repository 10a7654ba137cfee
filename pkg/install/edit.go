package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
)

// defaultEntry asks the runtime for the pod's annotations, by which a pod can keep its address.
const defaultEntry = `{ "type": "ip-masq", "capabilities": { "io.kubernetes.cri.pod-annotations": true } }`

// errAlone refuses a list that would have no plugin but ours: it makes no network.
var errAlone = errors.New(`ip-masq would be the only plugin of the list, and it chains behind one that makes the network`)

// Insert puts our entry last into a conflist, exactly once, and changes no other byte. An entry that is there is kept, unless
// another one is given; nil gives none. Remove gives back what was there.
func Insert(raw, entry []byte) ([]byte, error) {
	l, err := scan(raw)
	if err != nil {
		return nil, err
	}
	ours, last := l.ours(), len(l.entries)-1
	if len(ours) > last {
		return nil, errAlone
	}
	if entry == nil {
		entry = l.present(ours)
	}
	switch {
	case len(ours) != 1 || ours[0] != last:
		return appended(raw, entry)
	case same(l.text(last), entry):
		return raw, nil
	}
	return splice(raw, l.entries[last].start, l.entries[last].end, entry), nil
}

// Remove takes every entry of ours out of a conflist, and nothing else.
func Remove(raw []byte) ([]byte, error) {
	for {
		l, err := scan(raw)
		if err != nil {
			return nil, err
		}
		ours := l.ours()
		if len(ours) == 0 {
			return raw, nil
		}
		if len(ours) == len(l.entries) {
			return nil, errAlone
		}
		raw = l.without(ours[0])
	}
}

// present is the entry to go on with where none is given: of several the first, which is older than what was added to it.
func (l *conflist) present(ours []int) []byte {
	if len(ours) == 0 {
		return []byte(defaultEntry)
	}
	return bytes.Clone(l.text(ours[0]))
}

// without cuts one entry out, with the comma and the space that appended puts before the last one.
func (l *conflist) without(n int) []byte {
	if n+1 < len(l.entries) {
		return splice(l.raw, l.entries[n].start, l.entries[n+1].start, nil)
	}
	return splice(l.raw, l.entries[n-1].end, l.entries[n].end, nil)
}

// appended has the entry behind all others, on a line of its own where they are, and none of ours among them.
func appended(raw, entry []byte) ([]byte, error) {
	raw, err := Remove(raw)
	if err != nil {
		return nil, err
	}
	l, err := scan(raw)
	if err != nil {
		return nil, err
	}
	last := l.entries[len(l.entries)-1]
	before := raw[:last.start]
	space := before[len(bytes.TrimRight(before, " \t\r\n")):]
	return splice(raw, last.end, last.end, slices.Concat([]byte(","), space, entry)), nil
}

// splice replaces raw[start:end].
func splice(raw []byte, start, end int, text []byte) []byte {
	return slices.Concat(raw[:start], text, raw[end:])
}

// same compares two texts but for white space.
func same(a, b []byte) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
