package netnstest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestToolsAreListed reads the project's tests: every program that they ask for
// or start by a literal name is installed by the groups that `make test` names
// for them.
func TestToolsAreListed(t *testing.T) {
	asked := 0
	for _, file := range testFiles(t) {
		groups := groupsFor(file)
		for _, use := range toolsIn(t, file) {
			asked++
			if !slices.ContainsFunc(groupsOf(use.tool), func(g string) bool { return slices.Contains(groups, g) }) {
				t.Errorf("%s: %s is in none of the groups %v of pkg/netnstest/tools.txt", use.where, use.tool, groups)
			}
		}
	}
	if asked < 100 {
		t.Errorf("only %d uses of programs found in all tests: this test no longer sees them", asked)
	}
}

// TestRequireKnowsTheList: a test that asks for what is not on the list fails, also where that is installed.
func TestRequireKnowsTheList(t *testing.T) {
	for tool, want := range map[string]string{
		"nft":             "",
		"no-such-program": "no-such-program is not in pkg/netnstest/tools.txt, so scripts/setup does not install it; add it",
	} {
		t.Setenv("CI", "")
		r := &recorder{TB: t}
		func() {
			defer func() { _ = recover() }() // how recorder ends a test
			Require(r, tool)
		}()
		if r.failed != want {
			t.Errorf("Require(%q) fails with %q, want %q", tool, r.failed, want)
		}
	}
}

// recorder is a test that keeps why it ended.
type recorder struct {
	TB
	failed string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	panic("failed")
}

func (r *recorder) Skipf(string, ...any) { panic("skipped") }

// groupsFor names the groups that are installed before a file's tests run.
func groupsFor(file string) []string {
	groups := []string{"test"}
	for _, module := range []string{"deploy", "runtime"} {
		if strings.HasPrefix(file, "tools/"+module+"/") {
			groups = append(groups, module)
		}
	}
	return groups
}

// kits run programs on behalf of tests.
var kits = []string{"pkg/netnstest", "pkg/testkit", "pkg/backend/backendtest"}

// testFiles are the project's, relative to its root, and those of the kits.
func testFiles(t *testing.T) []string {
	t.Helper()
	root := root(t)
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (rel == "bin" || strings.HasPrefix(d.Name(), ".") && rel != "."):
			return fs.SkipDir
		case strings.HasSuffix(rel, "_test.go"), strings.HasSuffix(rel, ".go") && slices.Contains(kits, filepath.Dir(rel)):
			files = append(files, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func root(t *testing.T) string {
	t.Helper()
	root, err := RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

type use struct{ tool, where string }

// toolsIn finds the literal names of programs in calls of Require, exec.Command, exec.LookPath, Space.Run and the like, and in
// Cmd.Args.
func toolsIn(t *testing.T, file string) (uses []use) {
	t.Helper()
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, filepath.Join(root(t), file), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	add := func(args ...ast.Expr) {
		for _, arg := range args {
			lit, ok := arg.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				continue
			}
			tool, _ := strconv.Unquote(lit.Value)
			if len(groupsOf(tool)) == 0 {
				tool = filepath.Base(tool) // one that is called by its path
			}
			if !elsewhere(tool) {
				uses = append(uses, use{tool, fmt.Sprintf("%s:%d", file, set.Position(arg.Pos()).Line)})
			}
		}
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			add(toolArguments(n)...)
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Args" {
				if list, ok := n.Value.(*ast.CompositeLit); ok && len(list.Elts) > 0 {
					add(list.Elts[0])
				}
			}
		}
		return true
	})
	return uses
}

// toolArguments are those arguments of a call that name programs.
func toolArguments(call *ast.CallExpr) []ast.Expr {
	name := ""
	switch fun := call.Fun.(type) {
	case *ast.SelectorExpr:
		name = fun.Sel.Name
	case *ast.Ident:
		name = fun.Name
	}
	first := map[string]int{"Require": 1, "Command": 0, "CommandContext": 1, "LookPath": 0, "Run": 1}
	at, known := first[name]
	switch {
	case !known || len(call.Args) <= at:
		return nil
	case name == "Require":
		return call.Args[at:]
	}
	return call.Args[at : at+1]
}

// elsewhere: the programs under test and their commands, Go itself, without which no test runs, the test itself, and a program
// that must not exist.
func elsewhere(tool string) bool {
	return slices.Contains([]string{
		"ip-masq", "ip-masq-agent", "ip-masq-installer", "run", "sync", "render", "status", "check", "explain", "cleanup", "lint",
		"go", "exe", "no-such-program", ".",
	}, tool)
}
