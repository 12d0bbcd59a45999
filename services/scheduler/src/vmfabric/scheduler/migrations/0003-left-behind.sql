-- What lost nodes have to let go when they return; a VM may be gone long before.
CREATE TABLE left_behind (
    cluster text NOT NULL,
    vm text NOT NULL,
    node text NOT NULL,
    record jsonb NOT NULL,
    PRIMARY KEY (cluster, vm, node),
    FOREIGN KEY (cluster, node) REFERENCES node (cluster, name)
);
