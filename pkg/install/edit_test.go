package install

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the .golden files instead of comparing with them")

func fixtures(t testing.TB, pattern string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	all := map[string][]byte{}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(path)] = raw
	}
	return all
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("differs from %s (-want +got), go test -update writes it:\n%s", path, diff)
	}
}

// Real conflists and odd ones: what we write is in the golden file, libcni loads it, a second insertion changes nothing, and
// removal gives back the bytes that were there.
func TestInsertGolden(t *testing.T) {
	for name, raw := range fixtures(t, "*.conflist") {
		t.Run(name, func(t *testing.T) {
			got, err := Insert(raw, nil)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, got)
			if again, err := Insert(got, nil); err != nil || !bytes.Equal(again, got) {
				t.Errorf("a second insertion changed it: %v\n%s", err, again)
			}
			list, err := libcni.NetworkConfFromBytes(got)
			if err != nil {
				t.Fatal(err)
			}
			if last := list.Plugins[len(list.Plugins)-1].Network.Type; last != "ip-masq" || count(list) != 1 {
				t.Errorf("want ip-masq last and once, not %q and %d times", last, count(list))
			}
			if back, err := Remove(got); err != nil || !bytes.Contains(raw, []byte(`"ip-masq"`)) && !bytes.Equal(back, raw) {
				t.Errorf("removal does not give back what was there: %v\n%s", err, back)
			}
		})
	}
}

func count(list *libcni.NetworkConfigList) int {
	n := 0
	for _, plugin := range list.Plugins {
		if plugin.Network.Type == pluginType {
			n++
		}
	}
	return n
}

func TestConvertGolden(t *testing.T) {
	for name, raw := range fixtures(t, "*.conf") {
		for _, raw := range [][]byte{raw, bytes.TrimSpace(raw), append([]byte("\r\n \t"), raw...)} {
			got, err := converted(name, raw, nil)
			if err != nil {
				t.Fatal(err)
			}
			file, conf, ok := reverted(listName(name), got)
			if !ok || file != name || !bytes.Equal(conf, raw) {
				t.Errorf("not given back: %v, %s\n%s", ok, file, conf)
			}
			if _, _, ok := reverted("other.conflist", got); ok {
				t.Error("a copy under another name was taken for a conversion by the installer")
			}
			list, err := libcni.NetworkConfFromBytes(got)
			if err != nil || len(list.Plugins) != 2 || count(list) != 1 {
				t.Fatalf("libcni: %v\n%s", err, got)
			}
		}
		got, _ := converted(name, raw, nil)
		golden(t, name, got)
	}
}

// What a runtime makes of X.conf, and what it makes of our X.conflist without our entry, is the same network.
func TestConversionIsLibcnis(t *testing.T) {
	for name, raw := range fixtures(t, "*.conf") {
		want, err := listOfOne(raw)
		if err != nil {
			t.Fatal(err)
		}
		text, err := converted(name, raw, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := libcni.NetworkConfFromBytes(text)
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != want.Name || got.CNIVersion != want.CNIVersion || !same(got.Plugins[0].Bytes, want.Plugins[0].Bytes) {
			t.Errorf("another network: %s %s\n%s\n%s", got.Name, got.CNIVersion, got.Plugins[0].Bytes, want.Plugins[0].Bytes)
		}
	}
}

func TestEntry(t *testing.T) {
	const list = `{"name":"n","plugins":[{"type":"a"},{"type":"ip-masq", "x":1}]}`
	for _, test := range []struct{ name, raw, entry, want string }{
		{"kept", list, "", list},
		{"replaced in place", list, `{"type":"ip-masq","y":2}`, `{"name":"n","plugins":[{"type":"a"},{"type":"ip-masq","y":2}]}`},
		{"the same but for space", list, ` { "type": "ip-masq", "x": 1 } `, list},
		{"new", `{"name":"n","plugins":[{"type":"a"}]}`, `{"type":"ip-masq"}`, `{"name":"n","plugins":[{"type":"a"},{"type":"ip-masq"}]}`},
		{"in the middle, given", `{"plugins":[{"type":"ip-masq"}, {"type":"a"}]}`, `{"type":"ip-masq","y":2}`, `{"plugins":[{"type":"a"},{"type":"ip-masq","y":2}]}`},
		{"by another letter case", `{"plugins":[{"type":"a"},{"Type":"ip-masq"}]}`, "", `{"plugins":[{"type":"a"},{"Type":"ip-masq"}]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var entry []byte
			if test.entry != "" {
				entry = []byte(test.entry)
			}
			got, err := Insert([]byte(test.raw), entry)
			if err != nil || string(got) != test.want {
				t.Errorf("got %s, %v; want %s", got, err, test.want)
			}
		})
	}
}

func TestEditRefusals(t *testing.T) {
	for _, raw := range []string{``, `{`, `[]`, `7`, `{"plugins":[{"type":"ip-masq"}]}`, `{"plugins":[]}`, `{"name":"n"}`, `{"plugins":[{"type":"a"}]} x`} {
		if got, err := Insert([]byte(raw), nil); err == nil {
			t.Errorf("Insert(%s) = %s", raw, got)
		}
	}
	if got, err := Remove([]byte(`{"plugins":[{"type":"ip-masq"},{"type":"ip-masq"}]}`)); err == nil {
		t.Errorf("Remove left %s", got)
	}
}

func FuzzInsertRemove(f *testing.F) {
	for _, raw := range fixtures(f, "*.conflist") {
		f.Add(raw)
	}
	for _, raw := range fixtures(f, "*.conf") {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Insert(raw, nil)
		if err != nil {
			return
		}
		if again, err := Insert(got, nil); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("not idempotent: %v\n%q\n%q", err, got, again)
		}
		if _, err := libcni.NetworkConfFromBytes(raw); err == nil {
			if _, err := libcni.NetworkConfFromBytes(got); err != nil {
				t.Fatalf("libcni loaded it before and does not now: %v\n%q", err, got)
			}
		}
		back, err := Remove(got)
		if err != nil {
			t.Fatal(err)
		}
		before, err := Remove(raw)
		if err == nil && len(before) == len(raw) && !bytes.Equal(back, raw) {
			t.Fatalf("not given back:\n%q\n%q", raw, back)
		}
		if diff := cmp.Diff(others(t, raw), others(t, got)); diff != "" {
			t.Fatalf("other keys changed:\n%s", diff)
		}
	})
}

// others is a document without our entries, numbers as they are written.
func others(t *testing.T, raw []byte) map[string]any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var document map[string]any
	if err := decoder.Decode(&document); err != nil {
		t.Fatal(err)
	}
	var rest []any
	plugins, _ := document["plugins"].([]any)
	for _, plugin := range plugins {
		if decodePlugin(plugin).Type != pluginType {
			rest = append(rest, plugin)
		}
	}
	document["plugins"] = rest
	return document
}

// patch is not always there; the form is simple enough to apply by hand.
func TestDiff(t *testing.T) {
	for name, raw := range fixtures(t, "*.conflist") {
		after, err := Insert(raw, nil)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		diff(&out, "a", "b", raw, after)
		minus, plus := sides(out.String())
		if !strings.Contains(string(raw), minus) || !strings.Contains(string(after), plus) {
			t.Errorf("%s: the hunk is not of these files:\n%s", name, out.String())
		}
		if strings.Replace(string(raw), minus, plus, 1) != string(after) {
			t.Errorf("%s: the hunk does not lead from one to the other:\n%s", name, out.String())
		}
	}
}

// sides takes a hunk apart into the text before and after.
func sides(text string) (minus, plus string) {
	for _, line := range strings.SplitAfter(text, "\n")[3:] {
		switch {
		case line == "":
		case strings.HasPrefix(line, `\`):
			minus, plus = strings.TrimSuffix(minus, "\n"), strings.TrimSuffix(plus, "\n")
		case line[0] == '-':
			minus += line[1:]
		case line[0] == '+':
			plus += line[1:]
		default:
			minus, plus = minus+line[1:], plus+line[1:]
		}
	}
	return minus, plus
}
