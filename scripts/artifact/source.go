// Package artifact is what the builders of image and release share: what the source says of itself, the programs, and archives
// in which nothing depends on the machine. It refuses to read a clock or the order of a directory.
package artifact

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// Arches are the architectures of everything that is published.
const Arches = "amd64,arm64"

// Source is what an artifact says about where it comes from.
type Source struct {
	Version  string
	Revision string
	Created  time.Time
}

// Describe takes VERSION, REVISION and SOURCE_DATE_EPOCH from the environment, and what is missing there from git. A source
// tree without either is of an unknown version, from 1970.
func Describe() (Source, error) {
	s := Source{Revision: either("REVISION", "git", "rev-parse", "HEAD")}
	version, err := run("scripts/version")
	if err != nil {
		return s, err
	}
	s.Version = version
	epoch := either("SOURCE_DATE_EPOCH", "git", "log", "-1", "--format=%ct")
	if epoch == "" {
		epoch = "0"
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return s, fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970", epoch)
	}
	s.Created = time.Unix(seconds, 0).UTC()
	return s, nil
}

// either returns the variable, or what the command prints, or nothing. A repository around a source tree is not asked.
func either(variable string, command ...string) string {
	if v := os.Getenv(variable); v != "" {
		return v
	}
	if _, err := os.Stat(".git"); err != nil {
		return ""
	}
	out, _ := run(command...)
	return out
}

func run(command ...string) (string, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", command[0], err)
	}
	return string(bytes.TrimSpace(out)), nil
}

// Compile builds every program of the project for an architecture and returns their files, by name.
func Compile(s Source, arch string) (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "ip-masq-build-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	build := exec.Command("scripts/build", dir)
	build.Env = append(os.Environ(), "GOARCH="+arch, "VERSION="+s.Version)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("scripts/build for linux/%s: %w", arch, err)
	}
	return ReadDir(dir)
}

// ReadDir returns the files of a directory, by name.
func ReadDir(dir string) (map[string][]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return files, nil
}
