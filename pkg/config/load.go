package config

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxFileSize is far more than 100,000 CIDRs need. It is there for a path that points at something else altogether.
const maxFileSize = 8 << 20

// dirPrefix begins the names of the files that count in a directory, as in Azure's agent.
const dirPrefix = "ip-masq"

// Load reads the configuration at opts.Path. Where nothing is there, all is default, unless
// the file is required. The findings and the error are those
// of Parse, each with the name of its file.
func Load(opts Options) (Config, []Finding, error) {
	loaded, err := NewLoader(opts).Load()
	if err != nil {
		return Config{}, loaded.Findings, err
	}
	return loaded.Config, loaded.Findings, nil
}

// readAll decodes all files. What it cannot read or decode it reports, and leaves out of good.
func readAll(opts Options, r *report) (all, good []file) {
	for _, path := range sources(opts, r) {
		data, err := readFile(path)
		if err != nil {
			r.system(path, "cannot be read", err)
			continue
		}
		first := len(r.findings)
		f := decode(path, data, opts, r)
		f.hash = sha256.Sum256(data)
		f.data = data
		all = append(all, f)
		if !r.failedSince(first) {
			good = append(good, f)
		}
	}
	return all, good
}

// sources lists the files that make up the configuration.
func sources(opts Options, r *report) []string {
	info, err := os.Stat(opts.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !opts.Required:
		if problem := otherKeys(opts.Path); problem != "" {
			r.errorf(place{file: opts.Path}, "%s", problem)
		}
		return nil
	case err != nil:
		r.system(opts.Path, "cannot be read", err)
		return nil
	case !info.IsDir():
		return []string{opts.Path}
	case !opts.AllowDir:
		r.errorf(place{file: opts.Path}, "is a directory where a file is expected: "+
			"name the file, or give the directory with --config to merge its %s* files", dirPrefix)
		return nil
	}
	return filesIn(opts.Path, r)
}

// Watched are the paths whose change may be one of the configuration: the file, and where it is in a mounted ConfigMap the link to
// what the ConfigMap has just now.
func Watched(path string) []string {
	return []string{path, filepath.Join(filepath.Dir(path), mountedData)}
}

// mountedData is in every directory as which the kubelet mounts a ConfigMap.
const mountedData = "..data"

// otherKeys says what is wrong where the file is missing although there is a ConfigMap, which silently meant the defaults.
func otherKeys(path string) string {
	dir := filepath.Dir(path)
	entries, _ := os.ReadDir(filepath.Join(dir, mountedData))
	var keys []string
	for _, e := range entries {
		if e.Name() == "config" {
			return "is missing, but the ConfigMap mounted at " + dir + " has the key config: mount that key as " + filepath.Base(path) + ", as conf/ip-masq-agent.yaml does"
		}
		keys = append(keys, e.Name())
	}
	if len(keys) == 0 {
		return ""
	}
	return "is missing: the ConfigMap mounted at " + dir + " has no key config, but " + strings.Join(keys, ", ") +
		": rename the key, for example with kubectl create configmap --from-file=config=" + keys[0]
}

// filesIn lists the directory's files that count, in the order of their names. In a mounted ConfigMap they are symlinks.
func filesIn(dir string, r *report) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.system(dir, "cannot be listed", err)
		return nil
	}
	var paths []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), dirPrefix) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		switch {
		case err != nil:
			r.system(path, "cannot be read", err)
		case info.IsDir():
			r.errorf(place{file: path}, "is a directory where a file is expected: remove or rename it")
		case !info.Mode().IsRegular(): // to open a pipe would wait for a writer
			r.errorf(place{file: path}, "is not a regular file: remove or rename it")
		default:
			paths = append(paths, path)
		}
	}
	return paths
}

var errTooBig = errors.New("it is larger than 8 MiB")

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err == nil && len(data) > maxFileSize {
		err = errTooBig
	}
	return data, err
}

// system reports an error of the operating system. Its text repeats the path, which the finding has already.
func (r *report) system(path, problem string, err error) {
	reason := err
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		reason = pathError.Err
	}
	r.errorf(place{file: path}, "%s: %s", problem, reason)
	r.causes = append(r.causes, err)
}
