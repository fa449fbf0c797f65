module banmesh.example/client

go 1.24
