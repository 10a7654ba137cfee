package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/ip-masq/ip-masq-cni/pkg/paths"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// pageTable is the rows of the first table on docs/plugin.md whose head begins with a word, by what stands between backquotes, or by all of
// the first column.
func pageTable(t *testing.T, head string) map[string]string {
	t.Helper()
	_, text, found := strings.Cut(string(readFile(t, "../../docs/plugin.md")), "\n| "+head+" |")
	text, _, _ = strings.Cut(text, "\n\n")
	rows := map[string]string{}
	for _, line := range strings.Split(text, "\n")[2:] {
		first := strings.TrimSpace(strings.Split(line, "|")[1])
		names := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(first, -1)
		if names == nil {
			names = [][]string{{"", first}}
		}
		for _, name := range names {
			rows[name[1]] = line
		}
	}
	if !found || len(rows) == 0 {
		t.Fatalf("docs/plugin.md has no table that begins with %q", head)
	}
	return rows
}

// TestPageHasEveryKey: the page's table has the keys of the entry that the program reads, those alone, and their defaults.
func TestPageHasEveryKey(t *testing.T) {
	rows := pageTable(t, "key")
	want := []string{"capabilities"} // read by the runtime
	for i := range reflect.TypeFor[netConf]().NumField() {
		key := reflect.TypeFor[netConf]().Field(i).Tag.Get("json")
		if !slices.Contains([]string{"cniVersion", "name", "prevResult", "runtimeConfig"}, key) { // given by the runtime
			want = append(want, key)
		}
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(rows)); !slices.Equal(got, want) {
		t.Errorf("docs/plugin.md has the keys %q, the program %q", got, want)
	}
	for _, key := range want {
		if !slices.Contains(knownKeys, key) {
			t.Errorf("the program warns of its own key %s", key)
		}
	}
	for key, value := range map[string]string{"masqChain": policy.DefaultChain, "stateDir": paths.StateDir, "dataDir": paths.DataDir} {
		if !strings.Contains(rows[key], "`"+value+"`") {
			t.Errorf("docs/plugin.md does not say that %s is %s by default: %s", key, value, rows[key])
		}
	}
}

// specified are the codes of the specification by their names in its library.
var specified = map[string]uint{
	"ErrInvalidNetworkConfig": types.ErrInvalidNetworkConfig, "ErrTryAgainLater": types.ErrTryAgainLater, "ErrDecodingFailure": types.ErrDecodingFailure,
	"ErrInvalidEnvironmentVariables": types.ErrInvalidEnvironmentVariables, "ErrIncompatibleCNIVersion": types.ErrIncompatibleCNIVersion,
	"ErrIOFailure": types.ErrIOFailure, "ErrInvalidNetNS": types.ErrInvalidNetNS,
}

// TestPageHasEveryCode: the page's table has the codes that stand in the program's source, those that the library of plugins gives by
// itself, and no other.
func TestPageHasEveryCode(t *testing.T) {
	want := map[string]bool{ // the library's: skel
		code(types.ErrIncompatibleCNIVersion): true, code(types.ErrInvalidEnvironmentVariables): true, code(types.ErrIOFailure): true,
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				if strings.HasPrefix(n.Names[0].Name, "code") && len(n.Values) == 1 {
					want[n.Values[0].(*ast.BasicLit).Value] = true
				}
			case *ast.SelectorExpr:
				if of, ok := n.X.(*ast.Ident); ok && of.Name == "types" && strings.HasPrefix(n.Sel.Name, "Err") && n.Sel.Name != "Error" {
					number, known := specified[n.Sel.Name]
					if !known {
						t.Errorf("%s: this test does not know types.%s", file, n.Sel.Name)
					}
					want[code(number)] = true
				}
			}
			return true
		})
	}
	if got, all := slices.Sorted(maps.Keys(pageTable(t, "code"))), slices.Sorted(maps.Keys(want)); !slices.Equal(got, all) {
		t.Errorf("docs/plugin.md has the codes %q, the program %q", got, all)
	}
}

func code(number uint) string { return strconv.FormatUint(uint64(number), 10) }
