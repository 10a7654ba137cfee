package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// defaultEntry asks the runtime for the pod's annotations, by which a pod can keep its address.
const defaultEntry = `{ "type": "ip-masq", "capabilities": { "io.kubernetes.cri.pod-annotations": true } }`

// errAlone refuses a list that would have no plugin but ip-masq, which makes no network.
var errAlone = errors.New(`ip-masq would be the only plugin of the list, and it chains behind one that makes the network`)

// Insert puts ip-masq's entry last into a conflist, exactly once, and changes no other byte. An entry that is there is kept, unless
// another one is given; nil gives none. Remove gives back what was there.
func Insert(raw, entry []byte) ([]byte, error) {
	l, err := scan(raw)
	if err != nil {
		return nil, err
	}
	own, last := l.own(), len(l.entries)-1
	if len(own) > last {
		return nil, errAlone
	}
	if entry == nil {
		entry = l.present(own)
	}
	switch {
	case len(own) != 1 || own[0] != last:
		return appended(raw, entry)
	case same(l.text(last), entry):
		return raw, nil
	}
	return splice(raw, l.entries[last].start, l.entries[last].end, entry), nil
}

// Remove takes every entry of ip-masq out of a conflist, and nothing else.
func Remove(raw []byte) ([]byte, error) {
	for {
		l, err := scan(raw)
		if err != nil {
			return nil, err
		}
		own := l.own()
		if len(own) == 0 {
			return raw, nil
		}
		if len(own) == len(l.entries) {
			return nil, errAlone
		}
		raw = l.without(own[0])
	}
}

// present is the entry to go on with where none is given: of several the first, which is older than what was added to it.
func (l *conflist) present(own []int) []byte {
	if len(own) == 0 {
		return []byte(defaultEntry)
	}
	return bytes.Clone(l.text(own[0]))
}

// without cuts one entry out, with the comma and the space that appended puts before the last one.
func (l *conflist) without(n int) []byte {
	if n+1 < len(l.entries) {
		return splice(l.raw, l.entries[n].start, l.entries[n+1].start, nil)
	}
	return splice(l.raw, l.entries[n-1].end, l.entries[n].end, nil)
}

// appended has the entry behind all others, on a line of its own where they are, and no other of ip-masq.
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

// convertedKey marks a list that was made of the configuration of a single plugin, and names the file it was. Runtimes
// ignore keys they do not know.
const convertedKey = "ip-masq-installer/converted-from"

// between stands between the former file's text and ip-masq's entry, end behind it.
const (
	between = ",\n    "
	end     = "\n  ]\n}\n"
)

// converted is the list that a runtime makes of a single plugin's configuration (libcni, ConfListFromConf), with ip-masq's entry
// behind it. The former text stands in it byte for byte, so that reverted can give it back without anything kept elsewhere.
func converted(file string, raw, entry []byte) ([]byte, error) {
	head, err := convertedHead(file, raw)
	if err != nil {
		return nil, err
	}
	if entry == nil {
		entry = []byte(defaultEntry)
	}
	return slices.Concat(head, raw, []byte(between), entry, []byte(end)), nil
}

func convertedHead(file string, raw []byte) ([]byte, error) {
	var conf map[string]any
	if err := json.Unmarshal(raw, &conf); err != nil {
		return nil, err
	}
	head := []byte("{\n")
	for _, member := range [][2]any{{"cniVersion", conf["cniVersion"]}, {"name", conf["name"]}, {convertedKey, file}} {
		value, err := json.Marshal(member[1])
		if err != nil {
			return nil, err
		}
		head = fmt.Appendf(head, "  %q: %s,\n", member[0], value)
	}
	return append(head, "  \"plugins\": [\n"...), nil
}

// reverted gives back the text that a list was converted from and the file's name. Where another program worked on the list
// since, it stays a list.
func reverted(list string, raw []byte) (file string, conf []byte, ok bool) {
	l, err := scan(raw)
	if err != nil || len(l.entries) != 2 || l.entries[1].Type != pluginType {
		return "", nil, false
	}
	file = stringOf(l.keys[convertedKey])
	if !isSingle(file) || listName(file) != list {
		return "", nil, false
	}
	head, err := convertedHead(file, l.text(0))
	conf, isConverted := bytes.CutPrefix(raw, head)
	if err != nil || !isConverted {
		return "", nil, false
	}
	conf, isConverted = bytes.CutSuffix(conf, slices.Concat([]byte(between), l.text(1), []byte(end)))
	return file, conf, isConverted
}
