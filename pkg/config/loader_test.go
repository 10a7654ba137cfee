package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLoader is the life of a directory: after each change of files what holds, and which files are named as bad.
func TestLoader(t *testing.T) {
	const list = "nonMasqueradeCIDRs: "
	type step struct {
		name  string
		files fileTree // what changes; "-" removes
		holds string   // the prefixes, exceptions behind a bar; "nothing" where the Config is not usable
		bad   string
	}
	for name, steps := range map[string][]step{
		"a mistake in one file": {
			{"good", fileTree{"ip-masq-a": list + "[1.0.0.0/8]", "ip-masq-b": list + "[2.0.0.0/8]"}, "1.0.0.0/8 2.0.0.0/8 |", ""},
			{"b is broken", fileTree{"ip-masq-b": list + "[2.0.0.1/8]"}, "1.0.0.0/8 2.0.0.0/8 |", "ip-masq-b"},
			{"a changes meanwhile", fileTree{"ip-masq-a": list + "[3.0.0.0/8]"}, "3.0.0.0/8 2.0.0.0/8 |", "ip-masq-b"},
			{"another one comes", fileTree{"ip-masq-0": list + "[4.0.0.0/8]"}, "4.0.0.0/8 3.0.0.0/8 2.0.0.0/8 |", "ip-masq-b"},
			{"a is broken as well", fileTree{"ip-masq-a": "{*"}, "4.0.0.0/8 3.0.0.0/8 2.0.0.0/8 |", "ip-masq-a ip-masq-b"},
			{"b is removed", fileTree{"ip-masq-b": "-"}, "4.0.0.0/8 3.0.0.0/8 |", "ip-masq-a"},
			{"a is good", fileTree{"ip-masq-a": ""}, "4.0.0.0/8 |", ""},
		},
		"a file that was never good": {
			{"at first", fileTree{"ip-masq-a": list + "[1.0.0.0/8]", "ip-masq-b": "x"}, "1.0.0.0/8 |", "ip-masq-b"},
			{"still", fileTree{"ip-masq-b": "y"}, "1.0.0.0/8 |", "ip-masq-b"},
			{"at last", fileTree{"ip-masq-b": list + "[2.0.0.0/8]"}, "1.0.0.0/8 2.0.0.0/8 |", ""},
		},
		"nothing is good": {
			{"one file", fileTree{"ip-masq-a": "x"}, rfc1918 + " |", "ip-masq-a"},
		},
		"files that do not go together": {
			{"good", fileTree{"ip-masq-a": list + "[1.0.0.0/8, 10.0.0.0/8]", "ip-masq-b": "masqueradeCIDRs: [10.1.0.0/16]"}, "1.0.0.0/8 10.0.0.0/8 | 10.1.0.0/16", ""},
			{"b contradicts a", fileTree{"ip-masq-b": "masqueradeCIDRs: [1.0.0.0/8]"}, "1.0.0.0/8 10.0.0.0/8 | 10.1.0.0/16", "ip-masq-b"},
			{"c changes meanwhile", fileTree{"ip-masq-c": "masqueradeCIDRs: [10.2.0.0/16]"}, "1.0.0.0/8 10.0.0.0/8 | 10.1.0.0/16 10.2.0.0/16", "ip-masq-b"},
			{"a gives way", fileTree{"ip-masq-a": list + "[10.0.0.0/8]"}, "10.0.0.0/8 | 1.0.0.0/8 10.2.0.0/16", ""},
		},
		"without a, a default contradicts b": {
			{"good", fileTree{"ip-masq-a": list + "[1.0.0.0/8]", "ip-masq-b": "masqueradeCIDRs: [10.0.0.0/8]"}, "1.0.0.0/8 | 10.0.0.0/8", ""},
			{"a is removed", fileTree{"ip-masq-a": "-"}, "nothing", "ip-masq-b"},
		},
		"files that cannot be read": {
			{"good", fileTree{"ip-masq-a": list + "[1.0.0.0/8]", "ip-masq-b": list + "[2.0.0.0/8]"}, "1.0.0.0/8 2.0.0.0/8 |", ""},
			{"a link to nowhere", fileTree{"ip-masq-b": "-> nowhere", "ip-masq-a": list + "[3.0.0.0/8]"}, "3.0.0.0/8 2.0.0.0/8 |", "ip-masq-b"},
			{"a directory", fileTree{"ip-masq-b": "/"}, "3.0.0.0/8 2.0.0.0/8 |", "ip-masq-b"},
			{"the directory of all is gone", fileTree{".": "-"}, "nothing", "."},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := NewLoader(Options{Path: dir, AllowDir: true, Required: true})
			for _, s := range steps {
				change(t, dir, s.files)
				loaded, err := l.Load()
				holds := "nothing"
				if loaded.Usable {
					holds = strings.Trim(fmt.Sprint(loaded.Config.NonMasquerade), "[]") + strings.TrimRight(" | "+strings.Trim(fmt.Sprint(loaded.Config.Masquerade), "[]"), " ")
				}
				var bad []string
				for _, f := range loaded.Findings {
					file, _ := filepath.Rel(dir, f.File)
					bad = append(bad, file)
				}
				if got := strings.Join(bad, " "); holds != s.holds || got != s.bad || (err != nil) != (got != "") {
					t.Errorf("%s: %s with %q (%v), want %s with %q", s.name, holds, got, err, s.holds, s.bad)
				}
			}
		})
	}
}

// TestLoaderOfOneFile: of a single file the last good content is the whole configuration, also while there is none.
func TestLoaderOfOneFile(t *testing.T) {
	dir := t.TempDir()
	l := NewLoader(Options{Path: filepath.Join(dir, "config"), Required: true})
	for i, s := range []struct {
		text, holds string
		good        bool
	}{
		{"nonMasqueradeCIDRs: [1.0.0.0/8]", "[1.0.0.0/8]", true},
		{"nonMasqueradeCIDRs: [1.0.0.1/8]", "[1.0.0.0/8]", false},
		{"-", "[1.0.0.0/8]", false},
		{"nonMasqueradeCIDRs: [2.0.0.0/8]", "[2.0.0.0/8]", true},
	} {
		change(t, dir, fileTree{"config": s.text})
		loaded, err := l.Load()
		if got := fmt.Sprint(loaded.Config.NonMasquerade); got != s.holds || !loaded.Usable || (err == nil) != s.good {
			t.Errorf("step %d: %s, %t, %v", i, got, loaded.Usable, err)
		}
	}
}

// change puts files in the place of what is there.
func change(t *testing.T, dir string, files fileTree) {
	t.Helper()
	if _, all := files["."]; all {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		return
	}
	made := files.make(t)
	for name, content := range files {
		err := os.RemoveAll(filepath.Join(dir, name))
		if content != "-" {
			err = errors.Join(err, os.Rename(filepath.Join(made, name), filepath.Join(dir, name)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
