// Command image writes a container image as one tar, without a container engine: an OCI
// image layout that is a Docker archive as well, so that `docker load`, `podman load` and
// `skopeo copy oci-archive:` take it. Equal programs and times give equal bytes.
//
//	image -arch amd64 -version 1.2.3 -time 1795000000 -programs DIR -out FILE
//
// DIR holds banmesh and banmesh-gate.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// user is the unprivileged user of the image, for the broker and the gate.
const user = 65532

func main() {
	arch := flag.String("arch", "amd64", "architecture of the programs")
	version := flag.String("version", "unknown", "version, which is the tag")
	at := flag.Int64("time", 0, "time of all files, in seconds")
	programs := flag.String("programs", "", "directory of the programs")
	out := flag.String("out", "", "the tar to write")
	flag.Parse()
	if err := write(*arch, *version, time.Unix(*at, 0).UTC(), *programs, *out); err != nil {
		fmt.Fprintln(os.Stderr, "image: error:", err)
		os.Exit(1)
	}
}

// archive is a tar in the making, all of whose files have one time.
type archive struct {
	bytes.Buffer
	w  *tar.Writer
	at time.Time
}

func newArchive(at time.Time) *archive {
	a := &archive{at: at}
	a.w = tar.NewWriter(&a.Buffer)
	return a
}

func (a *archive) add(h tar.Header, body []byte) error {
	h.ModTime, h.Size, h.Format = a.at, int64(len(body)), tar.FormatPAX
	if err := a.w.WriteHeader(&h); err != nil {
		return err
	}
	_, err := a.w.Write(body)
	return err
}

func (a *archive) directory(name string, mode int64, owner int) error {
	return a.add(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: owner, Gid: owner}, nil)
}

func (a *archive) file(name string, mode int64, body []byte) error {
	return a.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, body)
}

func (a *archive) link(name, to string) error {
	return a.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, nil)
}

// root is the image's one layer.
func root(at time.Time, programs string) ([]byte, error) {
	a := newArchive(at)
	var faults []error
	for _, name := range []string{"etc", "run", "usr", "usr/bin", "var", "var/lib"} {
		faults = append(faults, a.directory(name, 0o755, 0))
	}
	faults = append(faults, a.directory("tmp", 0o1777, 0), a.directory("etc/banmesh", 0o755, 0), a.directory("etc/banmesh-broker", 0o755, 0),
		a.directory("run/banmesh", 0o755, 0), a.directory("run/banmesh-broker", 0o755, user),
		a.directory("var/lib/banmesh", 0o700, 0), a.directory("var/lib/banmesh-broker", 0o700, user),
		a.file("etc/passwd", 0o644, fmt.Appendf(nil, "root:x:0:0:root:/var/lib/banmesh:/sbin/nologin\nbanmesh:x:%d:%d:banmesh:/var/lib/banmesh-broker:/sbin/nologin\n", user, user)),
		a.file("etc/group", 0o644, fmt.Appendf(nil, "root:x:0:\nbanmesh:x:%d:\n", user)))
	for _, name := range []string{"banmesh", "banmesh-gate"} {
		b, err := os.ReadFile(filepath.Join(programs, name))
		faults = append(faults, err, a.file("usr/bin/"+name, 0o755, b))
	}
	faults = append(faults, a.link("usr/bin/agent", "banmesh"), a.link("usr/bin/broker", "banmesh"), a.w.Close())
	return a.Bytes(), errors.Join(faults...)
}

// A descriptor points to a blob (OCI image specification, descriptors).
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func describe(mediaType string, blob []byte) descriptor {
	sum := sha256.Sum256(blob)
	return descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(blob)}
}

// path is where the layout keeps a blob.
func (d descriptor) path() string { return "blobs/sha256/" + d.Digest[len("sha256:"):] }

// object is JSON; its keys are written sorted.
type object = map[string]any

func write(arch, version string, at time.Time, programs, out string) error {
	layer, err := root(at, programs)
	if err != nil {
		return err
	}
	layerAt := describe("application/vnd.oci.image.layer.v1.tar", layer)
	config, err := json.Marshal(object{
		"architecture": arch, "os": "linux", "created": at,
		"config": object{
			"Entrypoint": []string{"/usr/bin/banmesh"}, "Cmd": []string{"run"}, "WorkingDir": "/",
			"Env":     []string{"PATH=/usr/bin", "BANMESH_CONFIG_DIR=/etc/banmesh", "BANMESH_STATE_DIR=/var/lib/banmesh", "BANMESH_SOCKET=/run/banmesh/agent.sock"},
			"Volumes": object{"/var/lib/banmesh": object{}},
			"Labels":  object{"org.opencontainers.image.title": "banmesh", "org.opencontainers.image.version": version, "org.opencontainers.image.licenses": "Apache-2.0"},
		},
		"rootfs":  object{"type": "layers", "diff_ids": []string{layerAt.Digest}},
		"history": []object{{"created": at, "created_by": "banmesh make image"}},
	})
	if err != nil {
		return err
	}
	configAt := describe("application/vnd.oci.image.config.v1+json", config)
	manifest, err := json.Marshal(object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": configAt, "layers": []descriptor{layerAt}})
	if err != nil {
		return err
	}
	manifestAt := describe("application/vnd.oci.image.manifest.v1+json", manifest)
	manifestAt.Annotations = map[string]string{"org.opencontainers.image.ref.name": version}
	index, err := json.Marshal(object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []descriptor{manifestAt}})
	if err != nil {
		return err
	}
	docker, err := json.Marshal([]object{{"Config": configAt.path(), "RepoTags": []string{"banmesh:" + version, "banmesh:latest"}, "Layers": []string{layerAt.path()}}})
	if err != nil {
		return err
	}
	a := newArchive(at)
	err = errors.Join(
		a.directory("blobs", 0o755, 0), a.directory("blobs/sha256", 0o755, 0),
		a.file(configAt.path(), 0o644, config), a.file(manifestAt.path(), 0o644, manifest), a.file(layerAt.path(), 0o644, layer),
		a.file("index.json", 0o644, index), a.file("manifest.json", 0o644, docker), a.file("oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)),
		a.w.Close(),
	)
	if err != nil {
		return err
	}
	return os.WriteFile(out, a.Bytes(), 0o644)
}
